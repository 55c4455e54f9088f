"""The optax target: a package with a gradient transformation, and the phases as plain jax.numpy code."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._verify import AbstractArtifact, AbstractRollout
from ..artifact import FrozenCell
from ..program import CompiledCell, Equation
from ._package import load_package, package_name, phases_source, write_package
from ._protocol import AbstractExporter
from ._source import infix, Renderer, sizes
from ._unroll import is_pointwise, unroll

_BLOCK_SIZE = 512
"""In verification: so small that its largest tensor is worked on in blocks."""

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
            public="mnemosyne",
            phases=self.text(frozen, compiled),
            requires=("jax", "optax", "numpy", "safetensors"),
            example=_EXAMPLE,
        )

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        imports = "import jax.numpy as jnp\nfrom jax import Array, lax"
        return phases_source(frozen, lowered(compiled), _TABLE, self.name, imports=imports, array="Array")

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        return _Artifact(load_package(folder / package_name(frozen)))


class _Artifact(AbstractArtifact):
    def __init__(self, package: ModuleType):
        self.package = package
        self.phases = package._optimizer._phases
        self.weights = package._optimizer._weights()

    def forms(self, name: str) -> tuple[str, ...]:
        return (name,)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {key: jnp.asarray(inputs[key]) for key in self.phases.INPUTS[name]}
        outputs = jax.jit(getattr(self.phases, name))(self.weights, given)
        return {key: np.asarray(value) for key, value in outputs.items()}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        optimizer = self.package.mnemosyne(lr=lr, weight_decay=weight_decay, total_steps=total_steps)
        return _Rollout([jnp.asarray(value) for value in params], optimizer)


class _Rollout(AbstractRollout):
    def __init__(self, params: list[jax.Array], optimizer: Any):
        import optax

        self.params = params
        self.state = optimizer.init(params)

        def advance(params: list[jax.Array], state: Any, grads: list[jax.Array]) -> tuple[list[jax.Array], Any]:
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state  # pyright: ignore[reportReturnType]

        self.advance = jax.jit(advance)

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.params, self.state = self.advance(self.params, self.state, [jnp.asarray(grad) for grad in grads])
        return [np.asarray(value) for value in self.params]


def lowered(compiled: CompiledCell) -> CompiledCell:
    """The cell as optax runs it: the pass over all coordinates is one loop, if its contractions are small enough."""
    update = unroll(compiled.programs["update"], compiled.weights)
    if not is_pointwise(update):
        return compiled
    return dataclasses.replace(compiled, programs={**compiled.programs, "update": update})


def _call(function: str) -> Renderer:
    return lambda equation, inputs, spare: f"{function}({', '.join(inputs)})"


def _broadcast(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.broadcast_to({inputs[0]}, {sizes(equation.output.shape, 'rows')})"


def _concatenate(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.concatenate([{', '.join(inputs)}], axis={equation.params['axis']})"


def _slice(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return f"{inputs[0]}[{':, ' * axis}{start}:{stop}]"


def _reduce(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f"jnp.{equation.params['kind']}({inputs[0]}, axis={equation.params['axes']})"


def _einsum(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    return f'jnp.einsum("{equation.params["subscripts"]}", {", ".join(inputs)}, precision="highest")'


_TABLE: dict[str, Renderer] = {
    **{
        name: _call(f"jnp.{name}")
        for name in ("abs", "exp", "log", "log1p", "expm1", "sqrt", "tanh", "sin", "cos", "floor", "sign")
    },
    **{name: infix for name in ("add", "sub", "mul", "div", "gt")},
    "neg": _call("jnp.negative"),
    "rsqrt": _call("lax.rsqrt"),
    "erf": _call("lax.erf"),
    "is_finite": _call("jnp.isfinite"),
    "not": _call("jnp.logical_not"),
    "max": _call("jnp.maximum"),
    "min": _call("jnp.minimum"),
    "pow": _call("jnp.power"),
    "ge": _call("jnp.greater_equal"),
    "eq": _call("jnp.equal"),
    "and": _call("jnp.logical_and"),
    "or": _call("jnp.logical_or"),
    "select": _call("jnp.where"),
    "to_bfloat16": lambda equation, inputs, spare: f"lax.reduce_precision({inputs[0]}, 8, 7)",
    "convert": lambda equation, inputs, spare: f"{inputs[0]}.astype(jnp.{equation.params['dtype']})",
    "reduce": _reduce,
    "reshape": lambda equation, inputs, spare: f"{inputs[0]}.reshape{sizes(equation.output.shape, '-1')}",
    "broadcast": _broadcast,
    "transpose": lambda equation, inputs, spare: f"{inputs[0]}.transpose({equation.params['permutation']})",
    "concatenate": _concatenate,
    "slice": _slice,
    "einsum": _einsum,
}
"""Each primitive of the closed set as a jax.numpy expression."""
