"""The page that shows how to write a cell: its code runs as it stands, and a package can bring such a cell."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from mnemo_compile.exporters import targets

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "your-own-cell.md"
MNEMO = ["-m", "mnemo_compile"]
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(arguments: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """The folder in which the page's blocks ran one after the other, and what they printed."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.py").write_text("\n".join([*BLOCKS, 'mnemo.save(frozen, "bundle")']), encoding="utf-8")
    result = run(["page.py"], folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_the_cell_is_under_forty_lines_of_code() -> None:
    assert sum(bool(line.strip()) for line in BLOCKS[0].splitlines()) < 40


def test_the_page_exports_trains_and_prints(ran: tuple[pathlib.Path, str]) -> None:
    folder, printed = ran
    lines = printed.splitlines()
    reports = {target: float(error) for target, error, _ in (line.split() for line in lines[: len(targets())])}
    assert set(reports) == set(targets())
    assert all(error <= 1e-5 for error in reports.values())
    assert {path.name for path in (folder / "build").iterdir()} == set(targets())
    assert float(lines[len(targets())]) < 1e-2
    assert lines[len(targets()) + 1] == "program update"
    assert any("%momentum" in line and "# page.py:" in line for line in lines)


def test_a_bundle_of_a_kind_that_is_not_there_says_so(ran: tuple[pathlib.Path, str]) -> None:
    result = run([*MNEMO, "inspect", "bundle", "--emit", "cell"], ran[0])
    assert result.returncode == 1
    assert "there is no kind of cell 'normalised-momentum'; there are adam, lstm, mnemosyne" in result.stderr


@pytest.mark.slow
def test_an_installed_package_brings_its_cell(ran: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "my_package.py").write_text(BLOCKS[0], encoding="utf-8")
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    entry = "[mnemo_compile.cells]\nnormalised-momentum = my_package:NormalisedMomentumConfig\n"
    (metadata / "entry_points.txt").write_text(entry)
    bundle = str(ran[0] / "bundle")
    shown = run([*MNEMO, "inspect", bundle, "--emit", "cell"], tmp_path)
    assert json.loads(shown.stdout)["kind"] == "normalised-momentum", shown.stderr
    program = run([*MNEMO, "inspect", bundle, "--emit", "program"], tmp_path)
    assert "# my_package.py:" in program.stdout, program.stderr
