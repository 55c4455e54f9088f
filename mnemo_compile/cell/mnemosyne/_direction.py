"""The direction: the gradient that each coordinate's memory recalls, over the root of the second moment.

In a tile of a matrix the step takes the polar factor in the place of that division.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._records import Chunks, Rows, Tensors, Tiles
from ._gradient_memory import AbstractGradientMemory
from ._numbers import relative_log, soft_clip, total
from ._second_moment import Moment, SecondMoment
from ._types import Grid, InitialState, NamedRows, Tile


class Signals(NamedTuple):
    """Signals of a coordinate's gradients that do not depend on the scale of the loss."""

    slope: Grid
    """This step's gradient over the root of the second moment."""
    heads: list[Grid]
    """The mean gradient of each head of the memory, over the same root."""
    log_square: Grid
    """Logarithm of the second moment relative to the tensor's mean square."""


class Reading(NamedTuple):
    """The results of reading a coordinate's memories in this step."""

    signals: Signals
    attended: Grid
    """The read of the gradient memory, over the root of the second moment."""
    memory: NamedRows
    """The next memory."""


class Direction(eqx.Module):
    """A linear combination of the memories' results. The network adds to its fixed coefficients.

    With one head, no `nesterov` and no network it is Adam's direction.
    """

    memory: AbstractGradientMemory
    second_moment: SecondMoment
    nesterov: Float[Array, ""] | None
    """The prior's coefficient for this step's gradient. None if that has no part in the prior's direction."""

    def __init__(self, memory: AbstractGradientMemory, second_moment: SecondMoment, nesterov: float):
        self.memory = memory
        self.second_moment = second_moment
        self.nesterov = jnp.array(nesterov) if nesterov and memory.heads else None

    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""
        return {**self.memory.initial_state(), **self.second_moment.initial_state()}

    def measure(self, grad: Grid) -> NamedRows:
        """Moments of each chunk."""
        return self.second_moment.measure(grad)

    def before(self, chunks: Chunks, tensors: Tensors) -> Signals:
        """Signals for `encode`, which runs before the keys exist. The heads lack this step's gradient."""
        context, _ = self.second_moment.recall(tensors)
        moment = self.second_moment.decode(chunks, context)
        return _signals(chunks, self.memory.before(chunks, tensors), moment, context)

    def recall(
        self, key: Float[Array, "tensors i"], query: Float[Array, "tensors i"], tensors: Tensors
    ) -> tuple[NamedRows, NamedRows]:
        """Context and next state, from keys and queries of the tensor's gradient memory."""
        context, state = self.second_moment.recall(tensors)
        memory_context, memory_state = self.memory.recall(key, query, tensors)
        return {**context, **memory_context}, {**state, **memory_state}

    def read(self, chunks: Chunks, context: Rows) -> Reading:
        """Reads the memories after this step's gradient has been written."""
        moment = self.second_moment.decode(chunks, context)
        recollection = self.memory.decode(chunks, moment.root, context)
        return Reading(
            signals=_signals(chunks, recollection.heads, moment, context),
            attended=recollection.attended * moment.root,
            memory={**recollection.memory, **moment.memory},
        )

    def combine(self, reading: Reading, bend: Float[Array, "terms chunks length"] | None) -> Grid:
        """The direction. `bend` holds the network's additions to the coefficients."""
        slope, heads = soft_clip(reading.signals.slope), reading.signals.heads
        terms = [reading.attended, *([slope] if heads else []), *heads[1:]]
        prior = [1.0] if self.nesterov is None else [1.0, self.nesterov]
        if bend is None:
            terms, coefficients = terms[: len(prior)], prior
        else:
            prior += [0.0] * (len(terms) - len(prior))
            coefficients = [coefficient + bend[place] for place, coefficient in enumerate(prior)]
        return total([coefficient * term for coefficient, term in zip(coefficients, terms, strict=True)])

    def compose(self, tiles: Tiles, context: Rows) -> tuple[Tile, NamedRows]:
        """What the direction of tiles is made of, and their next memory."""
        attended, memory = self.memory.attend(tiles, context)
        return attended if self.nesterov is None else attended + self.nesterov * tiles.grad, memory


def _signals(chunks: Chunks, means: list[Grid], moment: Moment, context: Rows) -> Signals:
    return Signals(
        slope=chunks.grad * moment.root,
        heads=[mean * moment.root for mean in means],
        log_square=relative_log(moment.square, context["mean_square"][:, None]),
    )
