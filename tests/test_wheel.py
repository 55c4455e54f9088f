"""The wheel holds what an installation needs: all packages, templates, presets and the zoo."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    parts = ["mnemo_compile", "pyproject.toml", "README.md", "LICENSE"]
    for part in parts:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / "source" / part)
        else:
            shutil.copy(source, folder / "source" / part)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], check=True)
    (built,) = folder.glob("mnemo_compile-*.whl")
    return set(zipfile.ZipFile(built).namelist())


@pytest.mark.parametrize("part", ["meta", "exporters", "zoo"])
def test_every_file_of_a_part_is_there(wheel: set[str], part: str) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mnemo_compile" / part).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".pyi"}
    }
    assert files - wheel == set()


def test_nothing_is_installed_beside_the_package(wheel: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"mnemo_compile"}
    assert not any("tests" in name for name in wheel)
