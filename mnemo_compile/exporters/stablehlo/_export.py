"""An exported stablehlo folder as verification runs it."""

import pathlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax import export

from ...errors import MnemoError
from ...verify import AbstractRollout
from ..one_tensor import AbstractOneTensorExport
from ._manifest import StableHloManifest


def _load(path: pathlib.Path) -> export.Exported:
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise MnemoError(f"{path} cannot be read ({error.strerror}); export the cell again") from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise MnemoError(f"{path} is not a function that jax exported ({reason}); export the cell again") from None


class StableHloExport(AbstractOneTensorExport):
    """Phases are compiled as users compile them. The step is compiled without optimizations, as it has many sizes."""

    def __init__(self, folder: pathlib.Path, manifest: StableHloManifest):
        self.inputs = {path: function.inputs for path, function in manifest.programs.items()}
        self.calls = {path: jax.jit(_load(folder / f"{path}.jaxexport").call) for path in self.inputs}
        self.compiled: dict[tuple[str, int], Any] = {}
        """Compiled `update` and, if it exists, `share`, by path and the tensor's size."""

    @property
    def has_share(self) -> bool:
        return "share" in self.calls

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        path = f"phases/{name}"
        outputs = self.calls[path]({array.name: inputs[array.name] for array in self.inputs[path]})
        return {key.removeprefix("next."): np.asarray(value) for key, value in outputs.items()}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        paths = [path for path in ("share", "update") if path in self.calls]
        missing = {(path, value.size) for path in paths for value in params} - self.compiled.keys()
        with futures.ThreadPoolExecutor() as pool:
            self.compiled.update(zip(missing, pool.map(self._compile, missing), strict=True))
        return super().start(params, lr=lr, weight_decay=weight_decay, total_steps=total_steps)

    def run(self, function: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if function == "init":
            return self.calls["init"]({"param": inputs["param"]})
        compiled = self.compiled[function, inputs["grad"].size]
        return compiled({array.name: inputs[array.name] for array in self.inputs[function]})

    def _compile(self, key: tuple[str, int]) -> Any:
        path, size = key
        carried = jax.eval_shape(self.calls["init"], {"param": jax.ShapeDtypeStruct([size], np.float32)})
        specs = {
            array.name: carried[array.name]
            if array.name in carried
            else jax.ShapeDtypeStruct([size if n == "N" else int(n) for n in array.shape], array.dtype)
            for array in self.inputs[path]
        }
        options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        return self.calls[path].lower(specs).compile(compiler_options=options)
