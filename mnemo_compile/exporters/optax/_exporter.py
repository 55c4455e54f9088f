"""The optax target: a package with a gradient transformation, and the phases as plain jax.numpy code."""

import dataclasses
import pathlib

from ...frozen import FrozenCell
from ...program import CompiledCell, is_pointwise, optimise, unstack
from ...step import Phase
from ...verify import AbstractExport
from .._interface import AbstractExporter
from ..python import load_package, package_name, PythonPackage, render
from ._any_shape import is_of_any_shape
from ._export import OptaxExport
from ._primitives import RENDERERS
from ._repeats import bodies, roll

PACKAGE = PythonPackage(
    target="optax",
    runtime=pathlib.Path(__file__).parent / "runtime",
    table=RENDERERS,
    public="mnemosyne",
    imports="import jax.numpy as jnp\nfrom jax import Array, lax\n\nfrom ._products import einsum",
    array="Array",
    requires=("jax", "optax", "numpy", "safetensors"),
    example="""\
optimizer = mnemosyne(total_steps=1000)
state = optimizer.init(params)
for batch in batches:
    updates, state = optimizer.update(jax.grad(loss_of)(params, batch), state, params)
    params = optax.apply_updates(params, updates)
""",
)


class OptaxExporter(AbstractExporter):
    """Writes `<name>/` with the function `mnemosyne`."""

    @property
    def name(self) -> str:
        return PACKAGE.target

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        PACKAGE.write(frozen, compiled, self.text(frozen, compiled), folder)

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        cell = lowered(compiled)
        rounds = [body for program in cell.programs.values() for body in bodies(program)]
        functions = [render(body, RENDERERS, PACKAGE.target, PACKAGE.array) for body in rounds]
        written = [cell.programs[phase.name] for phase in compiled.plan if _writes_chunks(phase)]
        any_shape = f"ANY_SHAPE = {all(map(is_of_any_shape, written))}\n"
        return "\n\n".join([PACKAGE.phases(frozen, cell), *functions, any_shape])

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        return OptaxExport(load_package(folder / package_name(frozen)))


def _writes_chunks(phase: Phase) -> bool:
    return phase.rows == "chunks" and phase.reduce is None


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as optax runs it.

    The pass over all coordinates is one loop, if its contractions are small enough. Repeated rounds are a loop.
    """
    programs = {name: roll(program) for name, program in compiled.programs.items()}
    for phase in compiled.plan:
        if _writes_chunks(phase):
            program = optimise(compiled.programs[phase.name], [unstack])
            if is_pointwise(program):
                programs[phase.name] = program
    return dataclasses.replace(compiled, programs=programs)
