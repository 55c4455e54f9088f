"""The stablehlo target: one tensor's step and the phases as programs of XLA, written by `jax.export`."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax
import jax.extend.mlir.dialects.stablehlo as dialect
from jax import export
from jax.extend.mlir import ir

from ...frozen import dump_document, FrozenCell
from ...program import CompiledCell
from ...verify import AbstractExport
from .._interface import AbstractExporter
from .._text import write_text
from ..one_tensor import signatures
from ._export import StableHloExport
from ._functions import Function, init_function, phase_function, share_function, Specs, step_function
from ._manifest import FILE, manifest_of, read_manifest
from ._readme import readme

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class StableHloExporter(AbstractExporter):
    """Writes `init`, `update`, `share` if the cell has that phase, and the phases, as `.jaxexport` and as `.mlirbc`.

    If the cell has tiles, there are `init_matrix`, `update_matrix` and `share_matrix` too. It also writes a manifest
    and a README.
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

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        return StableHloExport(frozen.cell(), folder, read_manifest(folder))


def _exports(compiled: CompiledCell) -> dict[str, export.Exported]:
    """Every exported function, by the path of its files without the suffix."""
    functions: dict[str, tuple[Function, Specs]] = {}
    for signature in signatures(compiled):
        functions[signature.path("init")] = init_function(signature)
        if signature.network:
            functions[signature.path("share")] = share_function(signature)
        functions[signature.path("update")] = step_function(signature)
    functions.update((f"phases/{name}", phase_function(compiled, name)) for name in compiled.programs)
    return {path: _export(function, specs) for path, (function, specs) in functions.items()}


def _export(function: Function, specs: Specs) -> export.Exported:
    with _no_source_lines():
        return export.export(jax.jit(function, keep_unused=True), platforms=PLATFORMS)(specs)


@contextlib.contextmanager
def _no_source_lines() -> Iterator[None]:
    """Locations name only operations, because lines of files differ between installations."""
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
        return str(module.operation.get_asm(large_elements_limit=16))
