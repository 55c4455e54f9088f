"""The onnx export is a set of valid models that take tensors of any sizes."""

import pathlib
import re
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters.onnx import OnnxExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell

LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"]


@pytest.fixture(scope="module")
def folder(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The export. Not to be written into."""
    folder = tmp_path_factory.mktemp("onnx")
    OnnxExporter().emit(frozen, compile_cell(frozen.cell()), folder)
    return folder


@pytest.fixture(scope="module")
def phases(frozen: FrozenCell) -> list[str]:
    """Those that the cell has."""
    return list(compile_cell(frozen.cell()).programs)


@pytest.fixture(scope="module")
def models(phases: list[str]) -> list[str]:
    """Names of the files, in the order of the text."""
    functions = ["init", "share", "update"] if "share" in phases else ["init", "update"]
    kinds = ["", "_matrix"] if "orthogonalise" in phases else [""]
    whole = [f"{name}{kind}.onnx" for kind in kinds for name in functions]
    return whole + [f"phases/{name}.onnx" for name in phases]


def loaded(path: pathlib.Path, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    return onnxruntime.InferenceSession(path, options)


def run(
    session: onnxruntime.InferenceSession, given: dict[str, np.ndarray], sizes: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """The outputs; of a tensor of these sizes in chunks of 32, and zeros where nothing is given."""
    batch, rows, columns = sizes
    names = {"batch": batch, "rows": rows, "columns": columns, "chunks": batch * rows * -(-columns // 32)}
    inputs = {}
    for node in session.get_inputs():
        shape: list[Any] = [names.get(size, size) for size in node.shape]
        zeros = np.zeros(shape, np.int64 if node.name in ("step", "skipped") else np.float32)
        inputs[node.name] = given.get(node.name, zeros)
    outputs = [node.name for node in session.get_outputs()]
    return dict(zip(outputs, map(np.asarray, session.run(outputs, inputs)), strict=True))


def test_models_are_valid_and_say_whose_they_are(folder: pathlib.Path, frozen: FrozenCell, models: list[str]) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx")}
    assert names == set(models)
    for path in folder.rglob("*.onnx"):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.input and model.graph.output
        assert {entry.key: entry.value for entry in model.metadata_props} == {
            "name": frozen.name,
            "version": frozen.version,
            "digest": frozen.digest,
        }
        assert model.ir_version == 8
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


SIZES = [(1, 1, n) for n in (1, 31, 32, 33, 4096, 5003, 32768, 32769, 100_003)]
SIZES += [(1, 7, 5003), (3, 129, 129), (2, 300, 1), (1, 1, 129), (5, 3, 4)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["", "_matrix"])
def test_any_sizes(folder: pathlib.Path, sizes: tuple[int, int, int], level: str, kind: str) -> None:
    session = loaded(folder / f"update{kind}.onnx", level)

    def step(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        share = folder / f"share{kind}.onnx"
        sums = run(loaded(share, level), given, sizes) if share.exists() else {}
        return run(session, {**given, **sums}, sizes)

    random = np.random.default_rng(0)
    given = {
        "param": np.full(sizes, 1e-3, np.float32),
        "grad": random.normal(size=sizes).astype(np.float32),
        "lr": np.ones((), np.float32),
        "aspect": np.ones((), np.float32),
        "role": np.array(1 if kind else 0, np.float32),
    }
    outputs = step(given)
    assert outputs["next.param"].shape == sizes
    assert np.all(np.isfinite(outputs["next.param"])) and np.all(outputs["next.param"] != given["param"])
    assert outputs["next.step"] == 1 and outputs["next.skipped"] == 0 and outputs["finite"]
    broken = np.zeros(sizes, np.float32)
    broken[-1, -1, -1] = np.nan
    refused = step({**given, "grad": broken})
    assert np.array_equal(refused["next.param"], given["param"])
    assert refused["next.step"] == 0 and refused["next.skipped"] == 1 and not refused["finite"]


def test_the_example_in_the_readme_runs(
    frozen: FrozenCell, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Random weights are no optimizer.
    OnnxExporter().emit(frozen, compile_cell(frozen.config.build()), tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(example[1], "README.md", "exec"), {})
    before, after = map(float, capsys.readouterr().out.split("->"))
    assert after < before


def test_the_readme_names_every_input_and_phase(folder: pathlib.Path, phases: list[str]) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    session = onnxruntime.InferenceSession(folder / "update.onnx")
    for name in [node.name for node in session.get_inputs()] + phases:
        assert f"`{name}`" in readme


def test_the_same_cell_gives_the_same_bytes(folder: pathlib.Path, frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    OnnxExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path)
    for path in folder.rglob("*.onnx"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_the_text_names_models_weights_and_nodes_and_holds_no_walls_of_numbers(
    frozen: FrozenCell, models: list[str]
) -> None:
    text = OnnxExporter().text(frozen, compile_cell(frozen.cell()))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("model ")] == [f"model {name}" for name in models]
    for line in (
        "  input %param: f32[batch, rows, columns]",
        "  weight %network.coordinate.input: f32[2, 5]",
        "  output %next.param",
    ):
        assert line in lines
    assert any(re.fullmatch(r"    %update\.\w+: f32\[block, 32\] = Mul\(%\S+, %\S+\)", line) for line in lines)
    assert "\x1b" not in text and max(map(len, lines)) < 300


def test_an_export_that_is_incomplete_or_damaged_is_refused_in_a_sentence(
    frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    exporter = OnnxExporter()
    exporter.emit(frozen, compile_cell(frozen.cell()), tmp_path)
    (tmp_path / "phases" / "recall.onnx").write_bytes(b"\x08\x08 nothing that can be run")
    opened = exporter.open(frozen, tmp_path)
    with pytest.raises(
        MnemoError, match=r"recall\.onnx is not a model that ONNX Runtime loads \(.*\); export the cell"
    ):
        opened.phase("recall", {})
    (tmp_path / "update.onnx").unlink()
    with pytest.raises(MnemoError, match=r"update\.onnx cannot be read \(No such file.*\); export the cell again"):
        exporter.open(frozen, tmp_path)
