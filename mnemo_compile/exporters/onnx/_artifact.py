"""An exported onnx folder as verification runs it."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import MnemoError
from ...step import shape_facts
from ...verify import AbstractArtifact, AbstractRollout


class _Session:
    """A model, loaded."""

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


class OnnxArtifact(AbstractArtifact):
    """Phases run with the runtime's optimizations off and the step with all of them, so that both are seen."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.phases: dict[str, _Session] = {}
        self.init = _Session(folder / "init.onnx", "ORT_ENABLE_ALL")
        self.update = _Session(folder / "update.onnx", "ORT_ENABLE_ALL")
        shares = any(name.startswith("network.") for name in self.update.inputs)
        self.share = _Session(folder / "share.onnx", "ORT_ENABLE_ALL") if shares else None

    def forms(self, name: str) -> tuple[str, ...]:
        return (name,)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name not in self.phases:
            self.phases[name] = _Session(self.folder / "phases" / f"{name}.onnx", "ORT_DISABLE_ALL")
        return {key.removeprefix("next."): value for key, value in self.phases[name].run(inputs).items()}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        return _Rollout(self, params, {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps or 0})


class _Rollout(AbstractRollout):
    def __init__(self, artifact: OnnxArtifact, params: Sequence[np.ndarray], options: Mapping[str, float]):
        self.share, self.update = artifact.share, artifact.update
        self.shapes = [value.shape for value in params]
        flat = [value.reshape(-1) for value in params]
        self.held = [{"param": value, **artifact.init.run({"param": value})} for value in flat]
        facts = [{**options, **shape_facts(shape)} for shape in self.shapes]
        self.fixed = [{name: np.asarray(value, np.float32) for name, value in each.items()} for each in facts]

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = [
            {**held, **fixed, "grad": grad.reshape(-1)}
            for held, fixed, grad in zip(self.held, self.fixed, grads, strict=True)
        ]
        sums: dict[str, np.ndarray] = {}
        if self.share is not None:
            terms = [self.share.run(inputs) for inputs in given]
            sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        for place, inputs in enumerate(given):
            results = self.update.run({**inputs, **sums})
            self.held[place] = {name: results[f"next.{name}"] for name in self.held[place]}
        return [held["param"].reshape(shape) for held, shape in zip(self.held, self.shapes, strict=True)]
