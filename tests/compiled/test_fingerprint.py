"""Other sources of the compiler have another fingerprint."""

import importlib.metadata
import pathlib
import shutil

import pytest

from mnemo_compile.compiled._fingerprint import fingerprint, OPTIONAL, PARTS, ROOT, sources_digest


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


@pytest.mark.parametrize("library", OPTIONAL)
def test_another_version_of_a_library_changes_it(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Also one that is not there, as kernels are written only where Triton can verify them."""
    version = importlib.metadata.version

    def found(name: str) -> str:
        if name == library:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    before = fingerprint.__wrapped__()
    monkeypatch.setattr(importlib.metadata, "version", found)
    assert fingerprint.__wrapped__() != before
