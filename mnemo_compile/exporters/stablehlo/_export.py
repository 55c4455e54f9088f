"""An exported stablehlo folder as verification runs it."""

import pathlib
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax import export

from ...cell import AbstractCell
from ...errors import MnemoError
from ...step.reference import layout_of
from ...verify import AbstractRollout, FEW_RUNS
from ..one_tensor import AbstractOneTensorExport, AXES, function_name, views_of
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

    def __init__(self, cell: AbstractCell, folder: pathlib.Path, manifest: StableHloManifest):
        self.cell = cell
        self.inputs = {path: function.inputs for path, function in manifest.programs.items()}
        self.calls = {path: jax.jit(_load(folder / f"{path}.jaxexport").call) for path in self.inputs}
        self.compiled: dict[tuple[str, tuple[int, ...]], Any] = {}
        """Compiled functions of the step, by path and the sizes of the tensor."""

    @property
    def has_share(self) -> bool:
        return "share" in self.calls

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        path = f"phases/{name}"
        outputs = self.calls[path]({array.name: inputs[array.name] for array in self.inputs[path]})
        return {key.removeprefix("next."): np.asarray(value) for key, value in outputs.items()}

    def start(
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        functions = [name for name in ("share", "update") if name in self.calls]
        views = views_of(layout_of(self.cell, [value.shape for value in params.values()], list(params)))
        keys = [(function_name(name, view.has_tiles), view.axes.sizes) for name in functions for view in views]
        missing = [key for key in dict.fromkeys(keys) if key not in self.compiled]
        with futures.ThreadPoolExecutor() as pool:
            self.compiled.update(zip(missing, pool.map(self._compile, missing), strict=True))
        return super().start(params, lr=lr, weight_decay=weight_decay, total_steps=total_steps)

    def run(self, function: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if function.startswith("init"):
            return self.calls[function]({"param": inputs["param"]})
        compiled = self.compiled[function, inputs["grad"].shape]
        return compiled({array.name: inputs[array.name] for array in self.inputs[function]})

    def _compile(self, key: tuple[str, tuple[int, ...]]) -> Any:
        path, shape = key
        init = path.replace("share", "init").replace("update", "init")
        carried = jax.eval_shape(self.calls[init], {"param": jax.ShapeDtypeStruct(shape, np.float32)})
        sizes: dict[str, int] = dict(zip(AXES, shape, strict=True))
        specs = {
            array.name: carried[array.name]
            if array.name in carried
            else jax.ShapeDtypeStruct([sizes.get(str(n)) or int(n) for n in array.shape], array.dtype)
            for array in self.inputs[path]
        }
        return self.calls[path].lower(specs).compile(compiler_options=FEW_RUNS)
