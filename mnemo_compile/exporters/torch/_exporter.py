"""The torch target: a package with a `torch.optim.Optimizer`, and the phases as plain torch code."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...verify import AbstractArtifact
from ...frozen import FrozenCell
from ...errors import MissingExtraError
from ...program import CompiledCell, OF_TENSORS, Program
from ._fuse import for_compiler, fuse
from ..python._package import load_package, package_name, phases_source, write_package
from ._per_tensor import separate
from .._interface import AbstractExporter
from ._artifact import TorchArtifact
from ._primitives import TABLE
from ..python._unroll import is_pointwise, unroll

FUSED = ("fused_measure", "fused_update")
"""Phases in the form that `torch.compile` makes one loop of."""

_EXAMPLE = """\
optimizer = Mnemosyne(model.parameters(), total_steps=1000)
for batch in batches:
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()
"""


class TorchExporter(AbstractExporter):
    """Writes `<name>/` with the class `Mnemosyne`."""

    @property
    def name(self) -> str:
        return "torch"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        write_package(
            frozen,
            compiled,
            folder,
            target=self.name,
            runtime=pathlib.Path(__file__).parent / "runtime",
            public="Mnemosyne",
            phases=self.text(frozen, compiled),
            requires=("torch", "safetensors", "numpy"),
            example=_EXAMPLE,
        )

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        imports = "import torch\nfrom torch import Tensor\n\nfrom ._functions import rational_tanh, to_bfloat16"
        programs = lowered(compiled)
        text = phases_source(frozen, programs, TABLE, self.name, imports=imports, array="Tensor")
        return f"{text}\n\nPOINTWISE = {all(is_pointwise(programs.programs[name]) for name in FUSED)}\n"

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise MissingExtraError("torch", "torch") from None
        return TorchArtifact(load_package(folder / package_name(frozen)))


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as torch runs it: what a phase over chunks computes of its tensor alone is a phase of its own before it,
    and sums of products are single operations."""
    programs: dict[str, Program] = {}
    for name, program in compiled.programs.items():
        first, rest = (None, program) if name in OF_TENSORS else separate(program, compiled.chunk_length)
        if first is not None:
            programs[first.name] = first
        programs[name] = fuse(rest)
        if name in ("measure", "update"):
            programs[f"fused_{name}"] = dataclasses.replace(
                for_compiler(unroll(rest, compiled.weights)), name=f"fused_{name}"
            )
    return dataclasses.replace(compiled, programs=programs)


