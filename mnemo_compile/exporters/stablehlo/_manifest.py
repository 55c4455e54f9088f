"""The manifest of a stablehlo export: its functions, and the versions that can run it."""

import importlib.metadata
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.extend.mlir.dialects.stablehlo as dialect
import pydantic
from jax import export

from ...errors import MnemoError
from ...frozen import AbstractDocument, FrozenCell, read_document, read_file

FILE = "manifest.json"
GUARANTEES = "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees"

_LIMIT = 1 << 20


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Array(_Strict):
    """An input or output."""

    name: str
    shape: tuple[int | str, ...]
    """Each entry is a size, the name of a free size, or an expression in one."""
    dtype: str


class Function(_Strict):
    """One program, in a `.jaxexport` and a `.mlirbc`."""

    inputs: tuple[Array, ...]
    """Inputs in the order of the program's arguments, which come after the index of the platform."""
    outputs: tuple[Array, ...]


class CallingConvention(_Strict):
    """The calling convention of `jax.export`, and the versions that the exporting jax can read."""

    version: int
    minimum: int
    maximum: int


class RunsWith(_Strict):
    """The window of versions that JAX promises to run the export in."""

    newer: str = "a jax and jaxlib built up to 6 months after those that exported"
    older: str = "a jax and jaxlib built up to 3 weeks before those that exported"
    source: str = GUARANTEES


class StableHloManifest(AbstractDocument):
    """The content of manifest.json."""

    name: str
    version: str
    digest: str
    """Digest of the cell."""
    jax: str
    jaxlib: str
    stablehlo: pydantic.constr(pattern=r"^\d+(\.\d+)*$")  # pyright: ignore[reportInvalidTypeForm]
    """Version of the portable artifacts."""
    calling_convention: CallingConvention
    runs_with: RunsWith = RunsWith()
    platforms: tuple[str, ...]
    programs: dict[str, Function]
    """Functions by the paths of their files without the suffix."""


def manifest_of(frozen: FrozenCell, exports: Mapping[str, export.Exported]) -> StableHloManifest:
    """The manifest of exported functions, by the paths of their files."""
    step = exports["update"]
    portable = re.search(rb"StableHLO_v([0-9.]+)", step.mlir_module_serialized)
    assert portable is not None
    return StableHloManifest(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        jax=jax.__version__,
        jaxlib=importlib.metadata.version("jaxlib"),
        stablehlo=portable[1].decode(),
        calling_convention=CallingConvention(
            version=step.calling_convention_version,
            minimum=export.minimum_supported_calling_convention_version,
            maximum=export.maximum_supported_calling_convention_version,
        ),
        platforms=step.platforms,
        programs={
            path: Function(
                inputs=_arrays(jax.tree.unflatten(exported.in_tree, exported.in_avals)[0][0]),
                outputs=_arrays(jax.tree.unflatten(exported.out_tree, exported.out_avals)),
            )
            for path, exported in exports.items()
        },
    )


def _arrays(avals: Mapping[str, Any]) -> tuple[Array, ...]:
    # A dictionary's leaves come in the order of its sorted keys.
    return tuple(
        Array(name=name, shape=_shape(aval.shape), dtype=str(aval.dtype)) for name, aval in sorted(avals.items())
    )


def _shape(shape: Sequence[Any]) -> tuple[int | str, ...]:
    return tuple(str(size) if export.is_symbolic_dim(size) else int(size) for size in shape)


def read_manifest(folder: pathlib.Path) -> StableHloManifest:
    """The manifest of an export. If this jax cannot run it, `MnemoError` names a version that can."""
    manifest = read_document(StableHloManifest, read_file(folder / FILE, _LIMIT), str(folder / FILE))
    number = manifest.calling_convention.version
    least = export.minimum_supported_calling_convention_version
    most = export.maximum_supported_calling_convention_version
    if number < least:
        raise MnemoError(
            f"{folder} has calling convention {number} and jax {jax.__version__} reads {least} to {most}; export the "
            f"cell again, or run: pip install 'jax=={manifest.jax}'"
        )
    current = dialect.get_current_version()
    if number > most or _numbers(manifest.stablehlo) > _numbers(current):
        raise MnemoError(
            f"{folder} has calling convention {number} and StableHLO {manifest.stablehlo}, and jax {jax.__version__} "
            f"reads up to {most} and {current}; run: pip install 'jax>={manifest.jax}'"
        )
    return manifest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
