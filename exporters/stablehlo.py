"""The stablehlo target: one tensor's step and the phases as programs of XLA, written by `jax.export`."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.extend.mlir.dialects.stablehlo as dialect
import numpy as np
from jax import export
from jax.extend.mlir import ir

from .._layout import shape_facts
from .._verify import AbstractArtifact, AbstractRollout
from ..artifact import dump_document, FrozenCell
from ..errors import MnemoError
from ..program import CompiledCell
from ._package import write_text
from ._protocol import AbstractExporter
from ._stablehlo_functions import Function, init_function, phase_function, share_function, Specs, step_function
from ._stablehlo_manifest import FILE, manifest_of, read_manifest, StableHloManifest
from ._stablehlo_readme import readme

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class StableHloExporter(AbstractExporter):
    """Writes `init`, `update`, `share` if the cell has that phase, and the phases, as `.jaxexport` and as `.mlirbc`.

    Beside them are a manifest and a README.
    """

    @property
    def name(self) -> str:
        return "stablehlo"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        (folder / "phases").mkdir()
        programs = _exports(compiled)
        for path, exported in programs.items():
            (folder / f"{path}.jaxexport").write_bytes(exported.serialize())
            (folder / f"{path}.mlirbc").write_bytes(exported.mlir_module_serialized)
        manifest = manifest_of(frozen, programs)
        (folder / FILE).write_bytes(dump_document(manifest))
        write_text(folder / "README.md", readme(compiled, manifest))

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        return "\n".join(map(_assembly, _exports(compiled).values()))

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        return _Artifact(folder, read_manifest(folder))


def _exports(compiled: CompiledCell) -> dict[str, export.Exported]:
    """Every function, by the paths of their files without a suffix."""
    functions = {"init": init_function(compiled)}
    if "share" in compiled.programs:
        functions["share"] = share_function(compiled)
    functions["update"] = step_function(compiled)
    functions.update((f"phases/{name}", phase_function(compiled, name)) for name in compiled.programs)
    return {path: _export(function, specs) for path, (function, specs) in functions.items()}


def _export(function: Function, specs: Specs) -> export.Exported:
    with _no_source_lines():
        return export.export(jax.jit(function, keep_unused=True), platforms=PLATFORMS)(specs)


@contextlib.contextmanager
def _no_source_lines() -> Iterator[None]:
    """Locations name operations and not lines of files, which differ from one installation to the next."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _assembly(exported: export.Exported) -> str:
    """The module as text, with large constants elided."""
    with ir.Context() as context:
        dialect.register_dialect(context)
        module = dialect.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        return module.operation.get_asm(large_elements_limit=16)


def _load(path: pathlib.Path) -> export.Exported:
    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except OSError as error:
        raise MnemoError(f"{path} cannot be read ({error.strerror}); export the cell again") from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise MnemoError(f"{path} is not a function that jax exported ({reason}); export the cell again") from None


class _Artifact(AbstractArtifact):
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
    def __init__(self, artifact: _Artifact, params: Sequence[np.ndarray], options: Mapping[str, float]):
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
