"""The optax target: a package with a gradient transformation, and the phases as plain jax.numpy code."""

import dataclasses
import pathlib

from ...frozen import FrozenCell
from ...program import CompiledCell, is_pointwise, optimise, unstack
from ...verify import AbstractExport
from .._interface import AbstractExporter
from ..python import load_package, package_name, PythonPackage
from ._export import OptaxExport
from ._primitives import TABLE

PACKAGE = PythonPackage(
    target="optax",
    runtime=pathlib.Path(__file__).parent / "runtime",
    table=TABLE,
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
        return PACKAGE.phases(frozen, lowered(compiled))

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        return OptaxExport(load_package(folder / package_name(frozen)))


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as optax runs it: the pass over all coordinates is one loop, if its contractions are small enough."""
    programs = dict(compiled.programs)
    for phase in compiled.plan:
        if phase.rows == "chunks" and phase.reduce is None:
            program = optimise(programs[phase.name], [unstack])
            if is_pointwise(program):
                programs[phase.name] = program
    return dataclasses.replace(compiled, programs=programs)
