"""Other sources of the compiler have another fingerprint."""

import pathlib
import shutil

import pytest

from mnemo_compile.compiled._fingerprint import PARTS, ROOT, sources_digest


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the compiler's sources."""
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_copy_has_the_same_fingerprint(sources: pathlib.Path) -> None:
    assert sources_digest(sources) == sources_digest(ROOT)


@pytest.mark.parametrize("part", PARTS)
def test_any_change_of_a_file_changes_it(sources: pathlib.Path, part: str) -> None:
    path = max((sources / part).rglob("*.py"))
    content, digests = path.read_bytes(), {sources_digest(sources)}
    path.write_bytes(content.replace(b"e", b"f", 1))
    digests.add(sources_digest(sources))
    path.write_bytes(content + b"\n")
    digests.add(sources_digest(sources))
    path.rename(path.with_name("_renamed.py"))
    digests.add(sources_digest(sources))
    (path.with_name("_renamed.py")).unlink()
    digests.add(sources_digest(sources))
    assert len(digests) == 5
