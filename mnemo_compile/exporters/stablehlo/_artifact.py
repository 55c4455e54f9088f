"""An exported stablehlo folder as verification runs it."""

import pathlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax import export

from ...errors import MnemoError
from ...step import shape_facts
from ...verify import AbstractArtifact, AbstractRollout
from ._manifest import StableHloManifest


def _load(path: pathlib.Path) -> export.Exported:
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise MnemoError(f"{path} cannot be read ({error.strerror}); export the cell again") from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise MnemoError(f"{path} is not a function that jax exported ({reason}); export the cell again") from None


class StableHloArtifact(AbstractArtifact):
    """Phases are compiled as users compile them; the step, which is at many sizes, without optimizations."""

    def __init__(self, folder: pathlib.Path, manifest: StableHloManifest):
        self.inputs = {path: function.inputs for path, function in manifest.programs.items()}
        self.calls = {path: jax.jit(_load(folder / f"{path}.jaxexport").call) for path in self.inputs}
        self.compiled: dict[tuple[str, int], Any] = {}
        """The step, and the share if there is one, by path and the tensor's size."""

    def forms(self, name: str) -> tuple[str, ...]:
        return (name,)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        path = f"phases/{name}"
        outputs = self.calls[path]({array.name: inputs[array.name] for array in self.inputs[path]})
        return {key.removeprefix("next."): np.asarray(value) for key, value in outputs.items()}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        paths = [path for path in ("share", "update") if path in self.calls]
        wanted = {(path, value.size) for path in paths for value in params} - self.compiled.keys()
        with futures.ThreadPoolExecutor() as pool:
            self.compiled.update(zip(wanted, pool.map(self._compile, wanted), strict=True))
        return _Rollout(self, params, {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps or 0})

    def _compile(self, wanted: tuple[str, int]) -> Any:
        path, size = wanted
        carried = jax.eval_shape(self.calls["init"], {"param": jax.ShapeDtypeStruct([size], np.float32)})
        specs = {
            array.name: carried[array.name]
            if array.name in carried
            else jax.ShapeDtypeStruct([size if n == "N" else int(n) for n in array.shape], array.dtype)
            for array in self.inputs[path]
        }
        options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        return self.calls[path].lower(specs).compile(compiler_options=options)

    def run(self, path: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A compiled function of a tensor. Inputs that it does not have are ignored."""
        return self.compiled[path, inputs["grad"].size]({array.name: inputs[array.name] for array in self.inputs[path]})


class _Rollout(AbstractRollout):
    def __init__(self, artifact: StableHloArtifact, params: Sequence[np.ndarray], options: Mapping[str, float]):
        self.artifact = artifact
        self.shapes = [value.shape for value in params]
        flat = [value.reshape(-1) for value in params]
        self.held: list[dict[str, Any]] = [
            {"param": value, **artifact.calls["init"]({"param": value})} for value in flat
        ]
        facts = [{**options, **shape_facts(shape)} for shape in self.shapes]
        self.fixed = [{name: np.asarray(value, np.float32) for name, value in each.items()} for each in facts]

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = [
            {**held, **fixed, "grad": grad.reshape(-1)}
            for held, fixed, grad in zip(self.held, self.fixed, grads, strict=True)
        ]
        sums: dict[str, np.ndarray] = {}
        if "share" in self.artifact.calls:
            terms = [self.artifact.run("share", inputs) for inputs in given]
            sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        for place, inputs in enumerate(given):
            results = self.artifact.run("update", {**inputs, **sums})
            self.held[place] = {name: results[f"next.{name}"] for name in self.held[place]}
        return [np.asarray(held["param"]).reshape(shape) for held, shape in zip(self.held, self.shapes, strict=True)]
