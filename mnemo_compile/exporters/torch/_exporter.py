"""The torch target: a package with a `torch.optim.Optimizer`, and the phases as plain torch code."""

import dataclasses
import logging
import pathlib

from ...errors import MissingExtraError
from ...frozen import FrozenCell
from ...program import (
    check,
    CompiledCell,
    for_compiler,
    fuse,
    is_pointwise,
    optimise,
    Program,
    separate,
    taken,
    unstack,
)
from ...verify import AbstractExport
from .._interface import AbstractExporter
from ..python import literal, load_package, package_name, PythonPackage
from ._export import TorchExport
from ._interpreted import can_interpret
from ._primitives import TABLE
from .kernels import kernel_source

_LOGGER = logging.getLogger(__name__)

PACKAGE = PythonPackage(
    target="torch",
    runtime=pathlib.Path(__file__).parent / "runtime",
    table=TABLE,
    public="Mnemosyne",
    imports="import torch\nfrom torch import Tensor\n\n"
    "from ._functions import baddbmm, bmm, rational_tanh, to_bfloat16",
    array="Tensor",
    requires=("torch", "safetensors", "numpy"),
    example="""\
optimizer = Mnemosyne(model.named_parameters(), total_steps=1000)
for batch in batches:
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()
""",
)


class TorchExporter(AbstractExporter):
    """Writes `<name>/` with the class `Mnemosyne`."""

    @property
    def name(self) -> str:
        return PACKAGE.target

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        kernels, source = kernel_source(compiled, f"{frozen.name} {frozen.version}")
        if kernels and not can_interpret():
            _LOGGER.warning(
                "Triton is not installed, so that kernels cannot be verified and the torch package of %s has none, "
                "which makes it slower on a GPU; install triton",
                frozen.name,
            )
            kernels = ()
        text = f"{self.text(frozen, compiled)}KERNELS = {literal(kernels)}\n"
        PACKAGE.write(frozen, compiled, text, folder, {"_kernels.py": source} if kernels else {})

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        programs = lowered(compiled)
        is_loop = all(is_pointwise(fused) for fused in _fused(programs))
        return f"{PACKAGE.phases(frozen, programs)}\n\nPOINTWISE = {is_loop}\n"

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise MissingExtraError("torch", "torch") from None
        return TorchExport(load_package(folder / package_name(frozen)))


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as torch runs it.

    A separate function per phase over chunks computes what depends only on the tensor. Sums of products become single
    operations. A phase over all chunks gets a second form that `torch.compile` turns into one loop. An update gets one
    for steps of which is known that they are taken.
    """
    programs: dict[str, Program] = {}
    for phase in compiled.plan:
        program = compiled.programs[phase.name]
        if phase.rows == "tensors":
            programs[phase.name] = optimise(program, [fuse])
            continue
        rest = _separated(program, compiled.chunk_length, programs)
        if any(value.name == "finite" for value in program.inputs):
            _separated(check(taken(program), "taken"), compiled.chunk_length, programs)
        if phase.rows == "chunks":
            fused = optimise(rest, [unstack, for_compiler])
            programs[f"fused_{phase.name}"] = dataclasses.replace(fused, name=f"fused_{phase.name}")
    return dataclasses.replace(compiled, programs=programs)


def _separated(program: Program, chunk_length: int, programs: dict[str, Program]) -> Program:
    """Adds what is computed once per tensor, and the rest. Returns the rest before operations are fused."""
    first, rest = separate(program, chunk_length)
    if first is not None:
        programs[first.name] = check(first, "separate")
    programs[program.name] = optimise(check(rest, "separate"), [fuse])
    return rest


def _fused(compiled: CompiledCell) -> list[Program]:
    return [program for name, program in compiled.programs.items() if name.startswith("fused_")]
