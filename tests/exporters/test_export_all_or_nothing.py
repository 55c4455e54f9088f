"""An export is verified, written whole or not at all, and the same every time."""

import pathlib
import re

import numpy as np
import pytest

from mnemo_compile import _verify
from mnemo_compile.artifact import FrozenCell
from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.exporters import export, open_artifact, TARGETS
from mnemo_compile.program import compile_cell


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short trajectory, for tests that are not about its length."""
    monkeypatch.setattr(_verify.Reference.__init__, "__kwdefaults__", {"seed": 0, "steps": 6})


def test_exporting_twice_gives_the_same_bytes(
    frozen: FrozenCell, exported: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    reports = export(frozen, TARGETS, tmp_path)
    assert [report.target for report in reports] == list(TARGETS)
    assert all(report.passed for report in reports)
    assert contents(tmp_path) == contents(exported)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("target", "file", "pattern"),
    [
        ("torch", "small_cell/_phases.py", rb"1e-06"),
        ("torch", "small_cell/_phases.py", rb"0\.3333333\d*"),
        ("optax", "small_cell/_phases.py", rb"1e-06"),
    ],
)
def test_one_number_changed_in_the_code_fails_verification(
    frozen: FrozenCell, exported: pathlib.Path, tmp_path: pathlib.Path, target: str, file: str, pattern: bytes
) -> None:
    for name, content in contents(exported / target).items():
        path = tmp_path / target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            re.sub(pattern, b"0.3335" if b"333" in pattern else b"1e-05", content, 1) if name == file else content
        )
    assert not open_artifact(frozen, target, tmp_path / target).passed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("target", TARGETS)
def test_one_weight_changed_fails_verification(
    frozen: FrozenCell, exported: pathlib.Path, tmp_path: pathlib.Path, target: str
) -> None:
    weight = compile_cell(frozen.cell()).weights["coordinate_out"]
    changed = weight.copy()
    changed.flat[0] += np.float32(0.01) * abs(changed.flat[0]) + np.float32(0.01)
    found = 0
    for name, content in contents(exported / target).items():
        path = tmp_path / target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found += content.count(weight.tobytes())
        path.write_bytes(content.replace(weight.tobytes(), changed.tobytes()))
    assert found
    report = open_artifact(frozen, target, tmp_path / target)
    assert not report.passed
    assert report.failure is not None and "probe" in report.failure


@pytest.mark.usefixtures("quick")
def test_a_failing_verification_writes_nothing(
    frozen: FrozenCell, exported: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(frozen, ["torch"], out)
    before = contents(out)
    monkeypatch.setattr(_verify, "STEP_BOUND", -1.0)
    with pytest.raises(MnemoError, match="the torch export does not compute what the cell computes: its measure"):
        export(frozen, ["torch"], out)
    assert contents(out) == before
    assert [path.name for path in out.iterdir()] == ["torch"]
    with pytest.raises(MnemoError):
        export(frozen, ["onnx"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("quick")
def test_an_artifact_is_replaced_and_anything_else_refused(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "torch").mkdir()
    export(frozen, ["torch"], tmp_path)
    (tmp_path / "torch" / "small_cell" / "__pycache__").mkdir()
    export(frozen, ["torch"], tmp_path)
    assert not (tmp_path / "torch" / "small_cell" / "__pycache__").exists()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(MnemoError, match="is left as it is; name another folder"):
        export(frozen, ["torch", "onnx"], tmp_path)
    assert contents(tmp_path) == before


def test_an_unknown_target_is_refused_with_those_there_are(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="there is no target 'tensorflow'; the targets are torch, optax, onnx and all"):
        export(frozen, ["tensorflow"], tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MnemoError, match="cannot be written|cannot be read|is not an artifact"):
        export(frozen, ["torch"], tmp_path / "file")
