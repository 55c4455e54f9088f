"""Mnemosyne: a prior, a direction, and a network that changes both."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...step import MemorySlot, ROLES, TILED
from .._interface import AbstractCell, DECAY
from .._records import Chunks, Composition, Rows, Tensors, Tiles
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
    | coordinate | `ChunkEncoder`; a tile's polar factor | `TensorWiseMemory`, `CoordinateWiseMemory`: past gradients |
    | chunk | `TensorPooling` | `ChunkMemory` |
    | tensor | `NetworkAttention` | `AssociativeMemory` |

    The step is the prior's step size times a direction. The network adds to the logarithm of the step size and to the
    coefficients of the direction. The last layers of a new network are zero, so that the cell equals the prior. A cell
    whose configuration leaves the network out is its prior.

    The direction of a tiled matrix is the polar factor X G^(−1/2) of each tile X. G = X Xᵀ is linear attention whose
    keys and values are the tile's rows.
    """

    prior: Prior
    direction: Direction
    network: Network | None
    config: MnemosyneConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: MnemosyneConfig):
        memory = gradient_memory(config.momentum, config.memory_features, config.coordinate_wise)
        second_moment = SecondMoment(config.second_moment, ESTIMATES[config.second_moments](config.chunk_length))
        self.prior = Prior(config.prior)
        self.direction = Direction(memory, second_moment, config.prior.nesterov)
        self.network = Network(config, key=jax.random.key(config.seed)) if config.network else None
        self.config = config
        self.chunk_length = config.chunk_length
        self.sample_chunks = config.sample_chunks
        network_slots = () if self.network is None else self.network.slots()
        of_chunks = (*second_moment.slots(config.state_dtype), *network_slots)
        if config.prior.tile:
            # The direction of tiles has no second moment, and the network does not bend it.
            elementwise = tuple(role for role in ROLES if role not in TILED)
            of_chunks = tuple(slot._replace(roles=elementwise) for slot in of_chunks)
        self.memory_slots = (*memory.slots(config.state_dtype), *of_chunks)

    @property
    def tile(self) -> int:
        return self.config.prior.tile

    def phases(self) -> frozenset[str]:
        return super().phases() - (set() if self.network is not None else {"encode"})

    def initial_state(self) -> InitialState:
        network = {} if self.network is None else self.network.initial_state()
        return {**network, **self.direction.initial_state(), **self.prior.initial_state()}

    def measure(self, param: Float[Array, "chunks length"], grad: Float[Array, "chunks length"]) -> NamedRows:
        absolute = {} if self.network is None else {"absolute": jnp.sum(jnp.abs(grad), axis=1)}
        return {**absolute, **self.direction.measure(grad), **self.prior.measure(param)}

    def encode(self, chunks: Chunks, tensors: Tensors) -> NamedRows:
        """Attention over coordinates and chunks."""
        assert self.network is not None
        return self.network.encode(chunks, self.direction.before(chunks, tensors), tensors)

    def share(self, tensors: Tensors) -> NamedRows:
        """The trained gains, the small starts, and attention over the tensors of the network."""
        prior = self.prior.share(tensors)
        return prior if self.network is None else {**prior, **self.network.share(tensors, self._description(tensors))}

    def recall(self, tensors: Tensors) -> tuple[NamedRows, NamedRows]:
        """Context and next state. The context holds the step size and everything else that `decode` needs."""
        step, state = self.prior.recall(tensors)
        decay = DECAY * self.prior.timing(tensors.clock).schedule
        if self.network is None:
            key = query = jnp.zeros((*step.shape, self.direction.memory.heads * self.direction.memory.features))
            context, direction_state = self.direction.recall(key, query, tensors)
            return {"step": step, "decay": decay, **context}, {**state, **direction_state}
        bend, network_state = self.network.recall(tensors, self._description(tensors))
        context, direction_state = self.direction.recall(bend.key, bend.query, tensors)
        context = {"step": step * jnp.exp(bend.step), "decay": decay, "film": bend.film, **context}
        return context, {**state, **network_state, **direction_state}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Float[Array, "chunks length"], NamedRows]:
        reading = self.direction.read(chunks, context)
        bend, memory = None, {}
        if self.network is not None:
            bend, memory = self.network.bend(chunks, reading.signals, context["film"])
        direction = context["step"][:, None] * self.direction.combine(reading, bend)
        return direction, {**reading.memory, **memory}

    def compose(self, tiles: Tiles, context: Rows) -> Composition:
        matrix, memory = self.direction.compose(tiles, context)
        return Composition(matrix, memory, context["step"])

    def decay(self, context: Rows, clock: Rows) -> Float[Array, " rows"]:
        return context["decay"]

    def _description(self, tensors: Tensors) -> list[PerTensor]:
        """The numbers that describe the tensors as a whole."""
        mean_squares = self.direction.second_moment.mean_squares(tensors)
        return describe(tensors, self.prior.timing(tensors.clock), self.prior.sizes(tensors), mean_squares)
