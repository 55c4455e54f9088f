"""An export is verified, written whole or not at all, and the same every time."""

import pathlib

import pytest

from mnemo_compile.errors import MnemoError, UsageError
from mnemo_compile.exporters import export, targets, verify_export
from mnemo_compile.frozen import FrozenCell
from tests.helpers import frozen_adam


@pytest.fixture
def adam() -> FrozenCell:
    return frozen_adam()


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("targets", [("torch", "onnx"), ("optax", "stablehlo")])
def test_exporting_twice_gives_the_same_bytes(
    frozen: FrozenCell, exported: pathlib.Path, tmp_path: pathlib.Path, targets: tuple[str, ...]
) -> None:
    reports = export(frozen, targets, tmp_path)
    assert [report.target for report in reports] == list(targets)
    assert all(report.passed for report in reports)
    for target in targets:
        assert contents(tmp_path / target) == contents(exported / target)


@pytest.mark.usefixtures("quick")
def test_a_failing_verification_writes_nothing(
    adam: FrozenCell, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(adam, ["torch"], out)
    before = contents(out)
    monkeypatch.setattr("mnemo_compile.verify._report.STEP_BOUND", -1.0)
    with pytest.raises(MnemoError, match="the torch export does not compute what the cell computes: its measure"):
        export(adam, ["torch"], out)
    assert contents(out) == before
    assert [path.name for path in out.iterdir()] == ["torch"]
    with pytest.raises(MnemoError):
        export(adam, ["onnx"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("quick")
def test_an_export_is_replaced_and_anything_else_refused(adam: FrozenCell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "torch").mkdir()
    export(adam, ["torch"], tmp_path)
    (tmp_path / "torch" / "small_cell" / "__pycache__").mkdir()
    export(adam, ["torch"], tmp_path)
    assert not (tmp_path / "torch" / "small_cell" / "__pycache__").exists()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(MnemoError, match="is left as it is; name another folder"):
        export(adam, ["torch", "onnx"], tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("quick")
def test_nothing_is_deleted_that_the_export_did_not_write(adam: FrozenCell, tmp_path: pathlib.Path) -> None:
    export(adam, ["torch"], tmp_path)
    (tmp_path / "notes.txt").write_text("beside the exports")
    package = tmp_path / "torch" / "small_cell"

    def refused(cell: FrozenCell, said: str) -> None:
        before = contents(tmp_path)
        with pytest.raises(MnemoError, match=said) as caught:
            export(cell, ["torch", "onnx"], tmp_path)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == before

    refused(frozen_adam(name="other-cell"), "is the export of small-cell and is left as it is; name another folder")
    (package / "results.txt").write_text("mine")
    refused(adam, "small_cell/results.txt was added or changed after the export")
    (package / "results.txt").unlink()
    (package / "link").symlink_to(tmp_path / "nowhere")
    refused(adam, "torch cannot be read")
    (package / "link").unlink()
    text = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(text + "# a change of mine\n")
    refused(adam, "small_cell/__init__.py was added or changed after the export")
    (package / "__init__.py").write_text(text)
    marker = (tmp_path / "torch" / "export.json").read_text()
    (tmp_path / "torch" / "export.json").write_text("{}")
    refused(adam, "export.json is not valid: .*; remove .*torch, or name another folder")
    (tmp_path / "torch" / "export.json").write_text(marker)
    # A newer version of the cell takes the place of the older one.
    export(frozen_adam(learning_rate=0.5), ["torch"], tmp_path)
    assert verify_export(tmp_path / "torch").passed
    assert (tmp_path / "notes.txt").read_text() == "beside the exports"


def test_an_unknown_target_is_refused_with_those_there_are(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=f"no target 'tensorflow'; the targets are {', '.join(targets())} and all"):
        export(frozen, ["tensorflow"], tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MnemoError, match="cannot be written|cannot be read|is not an export"):
        export(frozen, ["torch"], tmp_path / "file")
