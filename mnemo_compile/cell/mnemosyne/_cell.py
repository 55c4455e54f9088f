"""Mnemosyne: a prior, a direction, and a network that changes both."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...step import MemorySlot
from .._interface import AbstractCell
from .._records import Chunks, Rows, Tensors
from ._config import MnemosyneConfig
from ._description import describe
from ._direction import Direction
from ._gradient_memory import gradient_memory
from ._network import Network
from ._prior import Prior
from ._second_moment import ESTIMATES, SecondMoment
from ._types import InitialState, NamedRows, PerTensor


class Mnemosyne(AbstractCell):
    """Mnemosyne (Jain et al. 2023, arXiv 2302.01128): attention over coordinates, chunks, tensors and steps.

    | level | over space | over time |
    |---|---|---|
    | coordinate | `ChunkEncoder` | `TensorWiseMemory`, `CoordinateWiseMemory`: past gradients |
    | chunk | `TensorPooling` | `ChunkMemory` |
    | tensor | `NetworkAttention` | `AssociativeMemory` |

    The step is the prior's step size times a direction. The network adds to the logarithm of the step size and to the
    coefficients of the direction. The last layers of a new network are zero, so that the cell equals the prior.
    """

    prior: Prior
    direction: Direction
    network: Network
    config: MnemosyneConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: MnemosyneConfig):
        memory = gradient_memory(config.momentum, config.memory_features, config.coordinate_wise)
        second_moment = SecondMoment(config.second_moment, ESTIMATES[config.second_moments](config.chunk_length))
        self.prior = Prior(config.prior)
        self.direction = Direction(memory, second_moment, config.prior.nesterov, config.prior.cautious)
        self.network = Network(config, key=jax.random.key(config.seed))
        self.config = config
        self.chunk_length = config.chunk_length
        self.sample_chunks = config.sample_chunks
        self.memory_slots = (*self.direction.slots(config.state_dtype), *self.network.slots())

    def phases(self) -> frozenset[str]:
        shares = self.prior.has_share or self.network.has_share
        return super().phases() - (set() if shares else {"share"})

    def initial_state(self) -> InitialState:
        return {**self.network.initial_state(), **self.direction.initial_state()}

    def measure(self, grad: Float[Array, "chunks length"]) -> NamedRows:
        return {"absolute": jnp.sum(jnp.abs(grad), axis=1), **self.direction.measure(grad)}

    def encode(self, chunks: Chunks, tensors: Tensors) -> NamedRows:
        """The size of the parameters, and attention over coordinates and chunks."""
        signals = self.direction.before(chunks, tensors)
        return {**self.prior.encode(chunks), **self.network.encode(chunks, signals, tensors)}

    def share(self, tensors: Tensors) -> NamedRows:
        """The number of matrices, and attention over the tensors of the network."""
        return {**self.prior.share(tensors), **self.network.share(tensors, self._description(tensors))}

    def recall(self, tensors: Tensors) -> tuple[NamedRows, NamedRows]:
        """Context and next state. The context holds the step size and everything else that `decode` needs."""
        bend, network_state = self.network.recall(tensors, self._description(tensors))
        context, state = self.direction.recall(bend.key, bend.query, tensors)
        step = self.prior.step(tensors) * jnp.exp(bend.step)
        return {"step": step, "film": bend.film, **context}, {**network_state, **state}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Float[Array, "chunks length"], NamedRows]:
        reading = self.direction.read(chunks, context)
        bend, memory = self.network.bend(chunks, reading.signals, context["film"])
        return self.direction.combine(reading, bend), {**reading.memory, **memory}

    def scale(self, context: Rows, direction: Rows) -> Float[Array, " rows"]:
        return self.prior.scale(context["step"], direction)

    def _description(self, tensors: Tensors) -> list[PerTensor]:
        """The numbers that describe the tensors as a whole."""
        mean_squares = self.direction.second_moment.mean_squares(tensors)
        return describe(tensors, self.prior.timing(tensors.clock), self.prior.sizes(tensors), mean_squares)
