"""The onnx export is a set of valid models that take any number of coordinates."""

import pathlib
import re

import numpy as np
import onnx
import onnxruntime
import pytest

from mnemo_compile.artifact import FrozenCell


def models(exported: pathlib.Path) -> list[pathlib.Path]:
    return sorted((exported / "onnx").rglob("*.onnx"))


def test_models_are_valid_and_say_whose_they_are(exported: pathlib.Path, frozen: FrozenCell) -> None:
    assert len(models(exported)) == 6
    for path in models(exported):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert {entry.key: entry.value for entry in model.metadata_props} == {
            "name": frozen.name,
            "version": frozen.version,
            "digest": frozen.digest,
        }
        assert model.ir_version == 8
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


@pytest.mark.parametrize("coordinates", [1, 63, 64, 65, 4096, 5003])
def test_any_number_of_coordinates(exported: pathlib.Path, coordinates: int) -> None:
    session = onnxruntime.InferenceSession(exported / "onnx" / "update.onnx")
    inputs = {}
    for node in session.get_inputs():
        shape = [coordinates if size == "N" else size for size in node.shape]
        inputs[node.name] = np.zeros(shape, np.int64 if node.name in ("step", "skipped") else np.float32)
    inputs["param"] = np.ones(coordinates, np.float32)
    inputs["grad"] = np.linspace(1, 2, coordinates, dtype=np.float32)
    inputs["lr"] = inputs["aspect"] = np.ones((), np.float32)
    names = [node.name for node in session.get_outputs()]
    outputs = dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))
    assert outputs["next.param"].shape == (coordinates,)
    assert np.all(np.isfinite(outputs["next.param"])) and np.any(outputs["next.param"] != 1)
    assert outputs["next.step"] == 1 and outputs["finite"]
    inputs["grad"] = np.full(coordinates, np.nan, np.float32)
    refused = dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))
    assert np.array_equal(refused["next.param"], inputs["param"])
    assert refused["next.step"] == 0 and refused["next.skipped"] == 1 and not refused["finite"]


def test_the_example_in_the_readme_runs(
    exported: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (exported / "onnx" / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    monkeypatch.chdir(exported / "onnx")
    exec(compile(example[1], "README.md", "exec"), {})
    before, after = map(float, capsys.readouterr().out.split("->"))
    assert after < before
