"""The optax target: a package with a gradient transformation, and the phases as plain jax.numpy code."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...verify import AbstractArtifact
from ...frozen import FrozenCell
from ...program import CompiledCell
from ..python._package import load_package, package_name, phases_source, write_package
from .._interface import AbstractExporter
from ._artifact import OptaxArtifact
from ._primitives import TABLE
from ..python._unroll import is_pointwise, unroll

_EXAMPLE = """\
optimizer = mnemosyne(total_steps=1000)
state = optimizer.init(params)
for batch in batches:
    updates, state = optimizer.update(jax.grad(loss_of)(params, batch), state, params)
    params = optax.apply_updates(params, updates)
"""


class OptaxExporter(AbstractExporter):
    """Writes `<name>/` with the function `mnemosyne`."""

    @property
    def name(self) -> str:
        return "optax"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        write_package(
            frozen,
            compiled,
            folder,
            target=self.name,
            runtime=pathlib.Path(__file__).parent / "runtime",
            public="mnemosyne",
            phases=self.text(frozen, compiled),
            requires=("jax", "optax", "numpy", "safetensors"),
            example=_EXAMPLE,
        )

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        imports = "import jax.numpy as jnp\nfrom jax import Array, lax"
        return phases_source(frozen, lowered(compiled), TABLE, self.name, imports=imports, array="Array")

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        return OptaxArtifact(load_package(folder / package_name(frozen)))


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as optax runs it: the pass over all coordinates is one loop, if its contractions are small enough."""
    update = unroll(compiled.programs["update"], compiled.weights)
    if not is_pointwise(update):
        return compiled
    return dataclasses.replace(compiled, programs={**compiled.programs, "update": update})


