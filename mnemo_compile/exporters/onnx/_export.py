"""An exported onnx folder as verification runs it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...cell import AbstractCell
from ...errors import MnemoError
from ..one_tensor import AbstractOneTensorExport, function_name


class _Session:
    """A loaded model."""

    def __init__(self, path: pathlib.Path, level: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
        try:
            # Bytes, so that the file may be moved while the session lives.
            content = path.read_bytes()
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise MnemoError(f"{path} cannot be read ({error.strerror}); export the cell again") from None
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise MnemoError(
                f"{path} is not a model that ONNX Runtime loads ({reason}); export the cell again"
            ) from None
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs. Inputs that the model does not have are ignored."""
        results = self.session.run(self.outputs, {name: inputs[name] for name in self.inputs})
        return {name: np.asarray(value) for name, value in zip(self.outputs, results, strict=True)}


class OnnxExport(AbstractOneTensorExport):
    """Phases run without the runtime's optimizations and the step with all of them, so that both are verified."""

    def __init__(self, cell: AbstractCell, folder: pathlib.Path):
        self.cell = cell
        self.folder = folder
        self.phases: dict[str, _Session] = {}
        kinds = (False, True) if cell.tile else (False,)
        names = [function_name(function, kind) for kind in kinds for function in ("init", "update")]
        self.functions = {name: _Session(folder / f"{name}.onnx", "ORT_ENABLE_ALL") for name in names}
        if any(name.startswith("network.") for name in self.functions["update"].inputs):
            for name in [function_name("share", kind) for kind in kinds]:
                self.functions[name] = _Session(folder / f"{name}.onnx", "ORT_ENABLE_ALL")

    @property
    def has_share(self) -> bool:
        return "share" in self.functions

    def run(self, function: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.functions[function].run(inputs)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name not in self.phases:
            self.phases[name] = _Session(self.folder / "phases" / f"{name}.onnx", "ORT_DISABLE_ALL")
        return {key.removeprefix("next."): value for key, value in self.phases[name].run(inputs).items()}
