"""The learned network, which changes the prior's step and direction within bounds."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...step import inverse_root, MemorySlot, ROLES
from .._records import Chunks, Tensors
from ._config import MnemosyneConfig
from ._description import Adaptation, Agreement, describe_role, NUMBERS
from ._direction import Signals
from ._memory import AssociativeMemory, ChunkMemory
from ._numbers import soft_clip, TINY, valid_count
from ._pooling import ChunkEncoder, CoordinateEncoder, dense, NetworkAttention, TensorPooling
from ._types import InitialState, NamedRows, PerTensor


class Bend(NamedTuple):
    """The outputs of the context network for a tensor."""

    step: PerTensor
    """Logarithm of the step's learned factor."""
    key: Float[Array, "tensors i"]
    """The products w · x that make the keys of the coordinates' memory."""
    query: Float[Array, "tensors i"]
    """The products w · x that make its queries."""
    film: Float[Array, "tensors hidden"]
    """Bias of the coordinate network."""


class ContextNetwork(eqx.Module):
    """Two layers from the tokens of a tensor to its outputs, which are zero before meta-training."""

    input: Float[Array, "context tokens"]
    bias: Float[Array, " context"]
    output: Float[Array, "outputs context"]

    def __init__(self, inputs: int, hidden: int, outputs: int, *, key: PRNGKeyArray):
        self.input = dense(key, hidden, inputs)
        self.bias = jnp.zeros(hidden)
        self.output = jnp.zeros((outputs, hidden))

    def __call__(self, tokens: Float[Array, "tensors meta tokens"]) -> Float[Array, "tensors outputs"]:
        flat = tokens.reshape(tokens.shape[0], self.input.shape[1])
        hidden = jnp.tanh(jnp.einsum("hx,tx->th", self.input, flat) + self.bias)
        return jnp.einsum("oh,th->to", self.output, hidden)


class CoordinateNetwork(eqx.Module):
    """Two layers from a coordinate's features to additions to the direction's coefficients. They start at zero."""

    input: Float[Array, "hidden features"]
    bias: Float[Array, " hidden"]
    output: Float[Array, "terms hidden"]

    def __init__(self, inputs: int, hidden: int, outputs: int, *, key: PRNGKeyArray):
        self.input = dense(key, hidden, inputs)
        self.bias = jnp.zeros(hidden)
        self.output = jnp.zeros((outputs, hidden))

    def __call__(
        self, features: Float[Array, "features chunks length"], bias: Float[Array, "hidden chunks"]
    ) -> Float[Array, "terms chunks length"]:
        hidden = jnp.maximum(jnp.tensordot(self.input, features, axes=1) + bias[:, :, None], 0)
        return jnp.tanh(jnp.tensordot(self.output, hidden, axes=1))


class Network(eqx.Module):
    """Attention over coordinates, chunks, tensors and steps, and two small networks that read the result.

    A part that the configuration leaves out is None.
    """

    encoder: ChunkEncoder | CoordinateEncoder
    pooling: TensorPooling
    attention: NetworkAttention | None
    """Over the tensors of the network."""
    time: AssociativeMemory | None
    """The meta-tokens' memory of earlier steps."""
    chunk_memory: ChunkMemory | None
    agreement: Agreement | None
    adaptation: Adaptation | None
    description: Float[Array, "token numbers"]
    """Maps the numbers that describe the tensor as a whole into its meta-tokens."""
    context: ContextNetwork
    coordinate: CoordinateNetwork
    role_aware: bool = eqx.field(static=True)
    memories: int = eqx.field(static=True)
    """Features of the coordinates' gradient memory."""
    step_bound: float = eqx.field(static=True)
    bend_bound: float = eqx.field(static=True)

    def __init__(self, config: MnemosyneConfig, *, key: PRNGKeyArray):
        c, keys = config, jax.random.split(key, 6)
        heads = len(c.momentum)
        signals = 2 + heads + (heads > 0)
        attention_key, chunk_key = (jax.random.fold_in(key, number) for number in (1, 2))
        sizes = (c.token, c.meta_tokens, c.random_features, c.kernel)
        self.encoder = (
            ChunkEncoder(2 + signals, c.token, c.random_features, c.kernel, key=keys[0])
            if c.pooling_levels == 2
            else CoordinateEncoder(2 + signals, c.token, key=keys[0])
        )
        self.pooling = TensorPooling(*sizes, key=keys[1])
        self.time = AssociativeMemory(*sizes, heads=c.tensor_heads, key=keys[2]) if c.tensor_memory else None
        self.attention = None
        if c.network_attention:
            self.attention = NetworkAttention(c.token, c.random_features, c.kernel, key=attention_key)
        self.chunk_memory = None
        if c.chunk_memory:
            self.chunk_memory = ChunkMemory(
                signals, c.token, c.chunk_features, c.chunk_memory, c.hidden, c.kernel, key=chunk_key
            )
        self.agreement = Agreement(heads) if c.agreement else None
        self.adaptation = Adaptation(c.adaptation) if c.adaptation else None
        self.role_aware = c.role_aware
        numbers = NUMBERS + 2 * heads * c.agreement + len(ROLES) * c.role_aware + (c.adaptation > 0)
        self.description = dense(keys[3], c.token, numbers)
        self.memories = heads * c.memory_features
        sources = 1 + c.tensor_heads * c.tensor_memory + c.network_attention
        outputs = 1 + 2 * self.memories + c.hidden + (c.adaptation > 0)
        self.context = ContextNetwork(sources * c.meta_tokens * c.token, c.context, outputs, key=keys[4])
        self.coordinate = CoordinateNetwork(signals, c.hidden, 1 + heads, key=keys[5])
        self.step_bound = c.step_bound
        self.bend_bound = c.bend_bound

    def slots(self) -> tuple[MemorySlot, ...]:
        """The memory slots of chunks."""
        return () if self.chunk_memory is None else self.chunk_memory.slots()

    def initial_state(self) -> InitialState:
        """The tensor's state before the first step."""
        state: dict[str, Float[Array, ...]] = {}
        if self.time is not None:
            state["numerator"], state["denominator"] = self.time.initial_state()
        return state if self.adaptation is None else {**state, **self.adaptation.initial_state()}

    def encode(self, chunks: Chunks, signals: Signals, tensors: Tensors) -> NamedRows:
        """Each chunk's terms of the attention that makes the meta-tokens."""
        mean_square = tensors.moments["square"] / tensors.shape["coordinates"]
        param_square = jnp.sum(chunks.param * chunks.param, axis=1) / valid_count(chunks.valid, chunks.grad.dtype)
        features = jnp.stack(
            [
                soft_clip(chunks.grad * inverse_root(mean_square + TINY)[:, None]),
                soft_clip(signals.slope),
                *(soft_clip(head) for head in signals.heads),
                *(soft_clip(signals.slope * head) for head in signals.heads[:1]),
                0.25 * signals.log_square,
                soft_clip(chunks.param * inverse_root(param_square + TINY)[:, None]),
            ]
        )
        numerator, denominator = self.pooling.summarise(*self.encoder(features, chunks.valid))
        summary = {"numerator": numerator, "denominator": denominator}
        return summary if self.agreement is None else {**summary, **self.agreement.encode(signals)}

    def share(self, tensors: Tensors, description: list[PerTensor]) -> NamedRows:
        """Each tensor's terms of the attention over the network."""
        if self.attention is None:
            return {}
        numerator, denominator = self.attention.summarise(self._tokens(tensors, description))
        return {"numerator": numerator, "denominator": denominator}

    def recall(self, tensors: Tensors, description: list[PerTensor]) -> tuple[Bend, NamedRows]:
        """The outputs of the context network, and the next state."""
        tokens = self._tokens(tensors, description)
        sources, state = [tokens], {}
        if self.time is not None:
            memory = (tensors.state["numerator"], tensors.state["denominator"])
            read, state["numerator"], state["denominator"] = self.time(tokens, *memory)
            sources.append(read)
        if self.attention is not None:
            sources.append(self.attention.read(tokens, tensors.network["numerator"], tensors.network["denominator"]))
        outputs = self.context(jnp.concatenate(sources, axis=2))
        i, hidden = self.memories, self.coordinate.bias.shape[0]
        step, key, query, film, adaptation = jnp.split(outputs, [1, 1 + i, 1 + 2 * i, 1 + 2 * i + hidden], axis=1)
        factor = self.step_bound * jnp.tanh(step[:, 0])
        if self.adaptation is not None:
            adapted, adaptation_state = self.adaptation(adaptation[:, 0], tensors.state)
            factor, state = factor + adapted, {**state, **adaptation_state}
        return Bend(factor, key, query, film), state

    def bend(
        self, chunks: Chunks, signals: Signals, film: Float[Array, "chunks hidden"]
    ) -> tuple[Float[Array, "terms chunks length"], NamedRows]:
        """The additions to the direction's coefficients, and the next memory."""
        # Even in the sign of the gradient: the network decides how far a coordinate goes and never which way.
        features = jnp.stack(
            [
                soft_clip(jnp.square(signals.slope)),
                *(soft_clip(jnp.square(head)) for head in signals.heads),
                *(soft_clip(signals.slope * head) for head in signals.heads[:1]),
                0.25 * signals.log_square,
            ]
        )
        bias, memory = self.coordinate.bias[:, None] + film.T, {}
        if self.chunk_memory is not None:
            chunk_bias, memory = self.chunk_memory(features, chunks)
            bias = bias + chunk_bias
        return self.bend_bound * self.coordinate(features, bias), memory

    def _tokens(self, tensors: Tensors, description: list[PerTensor]) -> Float[Array, "tensors meta token"]:
        """The meta-tokens, to which the description of the tensor as a whole is added."""
        numbers = [*description]
        if self.agreement is not None:
            numbers += self.agreement.describe(tensors.summary)
        if self.role_aware:
            numbers += describe_role(tensors)
        if self.adaptation is not None:
            numbers += self.adaptation.describe(tensors.state)
        tokens = self.pooling.read(tensors.summary["numerator"], tensors.summary["denominator"])
        return jnp.tanh(tokens + jnp.einsum("df,ft->td", self.description, jnp.stack(numbers))[:, None, :])
