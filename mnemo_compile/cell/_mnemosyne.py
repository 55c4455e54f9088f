"""Mnemosyne: implicit attention over a tensor's coordinates and over the steps so far, in all its variants."""

from collections.abc import Mapping
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jaxtyping import Array, Bool, Float

from .._fields import added
from ..step import Role, ROLES
from ._abstract import AbstractCell, MemorySlot, Rows
from ._config import AbstractCellConfig, register_cell, Size
from ._features import Kernel
from ._gradient_memory import AbstractGradientMemory, CoordinateWiseMemory, NoGradientMemory, TensorWiseMemory
from ._memory import AssociativeMemory, ChunkMemory, discount, log_rate
from ._moments import sum_of_squares
from ._pooling import ChunkEncoder, CoordinateEncoder, dense, NetworkAttention, TensorPooling
from ._second_moment import AbstractSecondMoment, FactoredMoment, FullMoment, NoMoment

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]
Bound = Annotated[float, pydantic.Field(ge=0, le=4)]
Few = Annotated[int, pydantic.Field(ge=1, le=8)]


@register_cell
class MnemosyneConfig(AbstractCellConfig):
    """What determines a Mnemosyne cell before meta-training: the variant, sizes, priors, bounds."""

    kind: Literal["mnemosyne"] = "mnemosyne"
    token: Size = 8
    """Length of chunk tokens and meta-tokens."""
    meta_tokens: Size = 2
    """Meta-tokens a tensor (b)."""
    random_features: Size = 8
    """Features of each kernel (M)."""
    kernel: Kernel = "positive"
    context: Size = 16
    """Hidden units of the tensor's network."""
    hidden: Size = 8
    """Hidden units of the coordinate's network."""
    momentum: Annotated[tuple[Fraction, ...], pydantic.Field(max_length=8)] = (0.9, 0.98)
    """Initial discounts λ of the heads of the coordinate's gradient memory; none, and a coordinate remembers none."""
    second_moment: Fraction = 0.99
    """Initial discount of the squared gradient."""
    matrix_step: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.012
    """Prior step of a matrix, relative to its root mean square."""
    vector_step: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.004
    """Prior step of a vector, relative to the larger of its root mean square and 1."""
    step_bound: Bound = 1.2
    """The learned factor of the step lies within exp(±step_bound)."""
    bend_bound: Bound = 0.5
    """Learned coefficients of the direction stay within this of the prior's."""
    coordinate_wise: tuple[Role, ...] = added(())
    """Roles of the tensors whose coordinates have keys and queries of their own: none is the tensor-wise variant, all
    the coordinate-wise one, and some are Super-Mnemosyne."""
    memory_features: Few = added(1)
    """Features of a head of the coordinate's gradient memory (r)."""
    second_moments: Literal["full", "factored", "none"] = added("full")
    """One of each coordinate; of each chunk and of each place in a chunk; or of the tensor alone."""
    state_dtype: Literal["float32", "bfloat16"] = added("float32")
    """How a coordinate's state is kept."""
    pooling_levels: Literal[1, 2] = added(2)
    """Coordinates to chunk tokens to meta-tokens, or coordinates to meta-tokens."""
    tensor_memory: bool = added(True)
    """Whether the meta-tokens remember earlier steps."""
    tensor_heads: Few = added(1)
    """Heads of the meta-tokens' memory, each with its discounts."""
    chunk_memory: Annotated[int, pydantic.Field(ge=0, le=64)] = added(0)
    """Length of what a chunk's memory of earlier steps says; 0 for none."""
    chunk_features: Size = added(4)
    """Random features of the chunk's memory."""
    network_attention: bool = added(False)
    """Whether the tensors of the network attend to each other."""
    agreement: bool = added(False)
    """Whether the meta-tokens are told how well the gradient agrees with each head of the coordinates' memory."""
    role_aware: bool = added(False)
    """Whether the meta-tokens are told the tensor's role."""
    adaptation: Bound = added(0.0)
    """The step has a second factor within exp(±adaptation), which moves little by little and stays where it is."""
    nesterov: Annotated[float, pydantic.Field(ge=0, le=2)] = added(0.0)
    """Prior weight of this step's gradient in the direction, beside what memory says."""
    cautious: Annotated[float, pydantic.Field(ge=0, le=1)] = added(0.0)
    """How much of its step a coordinate loses whose direction is against this step's gradient (Liang et al. 2024, arXiv
    2411.16085)."""
    warm_up: Fraction = added(0.02)
    """Share of the horizon over which the step grows from zero."""
    reference_horizon: Annotated[int, pydantic.Field(ge=0)] = added(0)
    """Over a longer horizon than this the step is smaller, by the root of their ratio; 0 for steps of one size."""
    reference_matrices: Annotated[int, pydantic.Field(ge=0)] = added(0)
    """In a network of more matrices than this the step is smaller, by the root of their ratio; 0 for one size."""
    reference_width: Annotated[int, pydantic.Field(ge=0)] = added(0)
    """A matrix of more coordinates than a square one of this width takes a smaller step, by the root of the ratio of
    the widths; 0 for one size."""
    signal_to_noise: Annotated[float, pydantic.Field(ge=0, le=1)] = added(0.0)
    """Power of the direction's root mean square that the step grows with: 0 and steps are of one size however noisy the
    gradients are, 1 and they follow their ratio of signal to noise as Adam's do (Kingma and Ba 2015, section 2.1)."""
    annealing: Literal["cosine", "linear"] = added("cosine")
    """How the step goes down to the horizon."""

    @pydantic.field_validator("coordinate_wise")
    @classmethod
    def _in_order(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        return tuple(role for role in ROLES if role in roles)

    @pydantic.model_validator(mode="after")
    def _has_something_to_key(self) -> "MnemosyneConfig":
        if self.coordinate_wise and not self.momentum:
            raise ValueError("coordinate_wise names tensors whose memory is keyed, and momentum = [] leaves no memory")
        if self.agreement and not self.momentum:
            raise ValueError("agreement = true compares with a memory, and momentum = [] leaves none")
        return self

    def build(self) -> "Mnemosyne":
        return Mnemosyne(self)


TINY = 1e-36
WARM_UP_STEPS = 20.0
"""Steps over which the step grows where the horizon is not known."""
LAST_STEP = 0.01
"""Share of the step that is left at the horizon and after it."""
EPSILON = 1e-5
"""Floor of a coordinate's second-moment root, relative to the tensor's root mean square."""
ADAPTATION = 0.05
"""The most that one step adds to `adapted`, of the 1 that it may reach."""
CAUTION = 1e-3
"""Product of direction and gradient, both over the second moment's root, at which half of `cautious` is lost: a
coordinate without gradient keeps its step."""
SPREAD_FLOOR = 0.2
"""The direction is divided by its root mean square or by this, whichever is larger: of a gradient that touches few
coordinates, or none of the sampled ones, the step stays that of Adam times at most 1 / SPREAD_FLOOR."""
USUAL_SPREAD = 0.5
"""A direction of this root mean square takes the same step at any `signal_to_noise`. It is 1 where all gradients agree,
and about 0.25 where they are noise, of which an average with a discount of 0.9 leaves √0.053."""


def soft_clip(x: Float[Array, "*shape"], limit: float) -> Float[Array, "*shape"]:
    """x for |x| ≪ limit, ±limit far out."""
    return x * jax.lax.rsqrt(1 + jnp.square(x * (1 / limit)))


def root_ratio(reference: int, number: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """√(reference / number), at most 1."""
    return jnp.minimum(jax.lax.rsqrt(jnp.maximum(number, 1) * (1 / reference)), 1)


class Mnemosyne(AbstractCell):
    """Mnemosyne (Jain et al. 2023, arXiv 2302.01128): attention over coordinates, chunks, tensors and steps.

    | level | over space | over time |
    |---|---|---|
    | coordinate | `ChunkEncoder` | `TensorWiseMemory`, `CoordinateWiseMemory`: past gradients |
    | chunk | `TensorPooling` | `ChunkMemory` |
    | tensor | `NetworkAttention` | `AssociativeMemory` |

    The direction is what the coordinate's memory reads over the root of the second moment. With the networks at zero
    that is Adam's; keys, queries, the step's factor and the bias of the coordinate's network come from the tensor's
    meta-tokens.
    """

    chunk_encoder: ChunkEncoder | CoordinateEncoder
    pooling: TensorPooling
    network: NetworkAttention | None
    time: AssociativeMemory | None
    chunks: ChunkMemory | None
    coordinates: AbstractGradientMemory
    moment: AbstractSecondMoment
    momentum_rate: Float[Array, " heads"]
    second_rate: Float[Array, ""]
    read_bias: Float[Array, " features"]
    facts_in: Float[Array, "token facts"]
    context_in: Float[Array, "context tokens"]
    context_bias: Float[Array, " context"]
    context_out: Float[Array, "outputs context"]
    coordinate_in: Float[Array, "hidden features"]
    coordinate_bias: Float[Array, " hidden"]
    coordinate_out: Float[Array, "terms hidden"]
    config: MnemosyneConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: MnemosyneConfig):
        keys = jax.random.split(jax.random.key(config.seed), 6)
        c = config
        heads, remembered = len(c.momentum), len(c.momentum) * c.memory_features

        def more_keys(number: int) -> Array:
            return jax.random.fold_in(jax.random.key(c.seed), number)

        # What is told apart in a coordinate: gradient, slope, size and parameter, and its memory if it has one.
        described = 4 + heads + (heads > 0)
        if c.pooling_levels == 2:
            self.chunk_encoder = ChunkEncoder(described, c.token, c.random_features, c.kernel, key=keys[0])
        else:
            self.chunk_encoder = CoordinateEncoder(described, c.token, key=keys[0])
        self.pooling = TensorPooling(c.token, c.meta_tokens, c.random_features, c.kernel, key=keys[1])
        self.network = (
            NetworkAttention(c.token, c.random_features, c.kernel, key=more_keys(1)) if c.network_attention else None
        )
        self.time = None
        if c.tensor_memory:
            self.time = AssociativeMemory(
                c.token, c.meta_tokens, c.random_features, c.kernel, heads=c.tensor_heads, key=keys[2]
            )
        self.chunks = None
        if c.chunk_memory:
            self.chunks = ChunkMemory(
                2 + heads + (heads > 0), c.token, c.chunk_features, c.chunk_memory, c.hidden, c.kernel, key=more_keys(2)
            )
        if not c.momentum:
            self.coordinates = NoGradientMemory()
        elif c.coordinate_wise:
            self.coordinates = CoordinateWiseMemory(heads, c.memory_features, c.coordinate_wise)
        else:
            self.coordinates = TensorWiseMemory(heads, c.memory_features)
        self.moment = {"full": FullMoment, "factored": FactoredMoment, "none": NoMoment}[c.second_moments](
            c.chunk_length
        )
        self.momentum_rate = jnp.array([log_rate(m) for m in c.momentum])
        self.second_rate = jnp.array(log_rate(c.second_moment))
        # The fast memory speaks first: the slow one's normaliser is several times as large. Features of one head are
        # asked unequally, or they would all learn the same.
        head, feature = np.divmod(np.arange(remembered), c.memory_features)
        self.read_bias = jnp.array(-5.0 * (head > 0) - 0.5 * feature, jnp.float32)
        facts = 10 + 2 * heads * c.agreement + len(ROLES) * c.role_aware + (c.adaptation > 0)
        self.facts_in = dense(keys[3], c.token, facts)
        tokens = 1 + (c.tensor_heads if c.tensor_memory else 0) + c.network_attention
        self.context_in = dense(keys[4], c.context, tokens * c.meta_tokens * c.token)
        self.context_bias = jnp.zeros(c.context)
        self.context_out = jnp.zeros((1 + 2 * remembered + c.hidden + (c.adaptation > 0), c.context))
        self.coordinate_in = dense(keys[5], c.hidden, 2 + heads + (heads > 0))
        self.coordinate_bias = jnp.zeros(c.hidden)
        self.coordinate_out = jnp.zeros((1 + heads, c.hidden))
        self.config = config
        self.chunk_length = c.chunk_length
        self.sample_chunks = c.sample_chunks
        self.memory_slots = (
            *self.coordinates.slots(c.state_dtype),
            *self.moment.slots(c.state_dtype),
            *(self.chunks.slots() if self.chunks is not None else ()),
        )

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        state = {"square_weight": jnp.zeros(()), "level": jnp.zeros(())}
        if self.time is not None:
            state["numerator"], state["denominator"] = self.time.initial_state()
        if self.config.adaptation:
            state["adapted"] = jnp.zeros(())
        return {**state, **self.coordinates.initial_state(), **self.moment.initial_state()}

    def measure(self, grad: Float[Array, "chunks length"]) -> dict[str, Float[Array, "chunks ..."]]:
        moments = {"square": sum_of_squares(grad), "absolute": jnp.sum(jnp.abs(grad), axis=1)}
        return {**moments, **self.moment.measure(grad)}

    def encode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        moments: Rows,
        facts: Rows,
        state: Rows,
    ) -> dict[str, Float[Array, "chunks ..."]]:
        count = jnp.sum(valid.astype(grad.dtype), axis=1)
        level, next_level, square_weight = self._levels(moments, facts, state)
        told, _ = self.moment.recall(moments, facts, discount(self.second_rate), state, next_level)
        unbiased, _ = self.moment.decode(memory, grad, valid, discount(self.second_rate), 1 / square_weight, told)
        root = jax.lax.rsqrt(unbiased + EPSILON**2 * level[:, None] + TINY)
        slope = grad * root
        heads = [mean * root for mean in self.coordinates.before(memory, state)]
        param_square = jnp.sum(param * param, axis=1)
        features = jnp.stack(
            [
                soft_clip(grad * jax.lax.rsqrt(level + TINY)[:, None], 3.0),
                soft_clip(slope, 3.0),
                *(soft_clip(head, 3.0) for head in heads),
                *(soft_clip(slope * head, 3.0) for head in heads[:1]),
                0.25 * relative_log(unbiased, level[:, None]),
                soft_clip(param * jax.lax.rsqrt(param_square / count + TINY)[:, None], 3.0),
            ]
        )
        numerator, denominator = self.pooling.summarise(*self.chunk_encoder(features, valid))
        summary = {"numerator": numerator, "denominator": denominator, "param_square": param_square, "count": count}
        if self.config.agreement:
            slope, heads = soft_clip(slope, 3.0), [soft_clip(head, 3.0) for head in heads]
            summary["slope_square"] = jnp.sum(slope * slope, axis=1)
            summary["head_square"] = jnp.stack([jnp.sum(head * head, axis=1) for head in heads], axis=1)
            summary["product"] = jnp.stack([jnp.sum(slope * head, axis=1) for head in heads], axis=1)
        return summary

    def _levels(
        self, moments: Rows, facts: Rows, state: Rows
    ) -> tuple[Float[Array, " rows"], Float[Array, " rows"], Float[Array, " rows"]]:
        """The mean square of the gradient, the discounted sum of it and of earlier ones, and their weight."""
        kept = discount(self.second_rate)
        level = moments["square"] / facts["coordinates"]
        return level, kept * state["level"] + level, kept * state["square_weight"] + 1

    def _schedule(self, clock: Rows) -> tuple[Float[Array, " tensors"], Float[Array, " tensors"]]:
        """The share of the step that is taken now, and how far the horizon is gone, 0 where it is not known."""
        step, total = clock["step"], clock["total"]
        horizon = jnp.maximum(total, 1)
        progress = jnp.minimum(step / horizon, 1)
        warm_up = jnp.where(total > 0, jnp.maximum(self.config.warm_up * horizon, 1), WARM_UP_STEPS)
        left = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if self.config.annealing == "cosine" else 1 - progress
        annealed = LAST_STEP + (1 - LAST_STEP) * left
        schedule = jnp.minimum((step + 1) / warm_up, 1) * jnp.where(total > 0, annealed, 1)
        return schedule, progress * (total > 0).astype(step.dtype)

    def _prior(self, summary: Rows, facts: Rows) -> Float[Array, " tensors"]:
        """The step of a tensor where nothing is learned, before `_reduction`."""
        rms, floor = _sizes(summary, facts)
        return jnp.where(
            facts["matrix"] > 0,
            self.config.matrix_step * jnp.maximum(rms, floor),
            self.config.vector_step * jnp.maximum(rms, 1),
        )

    def _reduction(self, network: Rows, facts: Rows, clock: Rows) -> Float[Array, " tensors"]:
        """What is left of the step over a long horizon, where noise adds up over the steps, in a deep network, where
        what the tensors change adds up, and of a wide matrix, whose inputs' changes do (Yang et al. 2022, arXiv
        2203.03466: of Adam's step the inverse of the width, which is the root of it relative to the matrix)."""
        reduction = jnp.ones_like(clock["total"])
        if self.config.reference_horizon:
            reduction = root_ratio(self.config.reference_horizon, clock["total"])
        if self.config.reference_matrices:
            reduction = reduction * root_ratio(self.config.reference_matrices, network["matrices"])
        if self.config.reference_width:
            # Of a square matrix of as many coordinates: the same for any transpose.
            width = jnp.where(facts["matrix"] > 0, jnp.sqrt(facts["coordinates"]), 1)
            reduction = reduction * root_ratio(self.config.reference_width, width)
        return reduction

    def _tokens(
        self, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> Float[Array, "tensors meta token"]:
        """The meta-tokens, with what is known of the tensor as a whole."""
        coordinates = facts["coordinates"]
        level, next_level, square_weight = self._levels(moments, facts, state)
        spread = jnp.square(moments["absolute"] * jax.lax.rsqrt(moments["square"] + TINY)) / coordinates
        schedule, progress = self._schedule(clock)
        rms, floor = _sizes(summary, facts)
        described = jnp.stack(
            [
                facts["matrix"],
                0.1 * jnp.log(coordinates),
                0.2 * jnp.log(facts["aspect"]),
                (clock["total"] > 0).astype(level.dtype),
                progress,
                schedule,
                soft_clip(0.2 * jnp.log(clock["step"] + 1), 2.0),
                0.2 * jnp.log(spread + 1e-6),
                0.25 * relative_log(level, next_level / square_weight),
                soft_clip(0.5 * jnp.log(rms / floor + 1e-3), 2.0),
                *self._told_besides(summary, facts, state),
            ]
        )
        tokens = self.pooling.read(summary["numerator"], summary["denominator"])
        return jnp.tanh(tokens + jnp.einsum("df,ft->td", self.facts_in, described)[:, None, :])

    def _told_besides(self, summary: Rows, facts: Rows, state: Rows) -> list[Float[Array, " tensors"]]:
        told = []
        if self.config.agreement:
            for head in range(len(self.config.momentum)):
                # How steady the gradients are: the mean of noise is small beside its terms.
                steady = relative_log(summary["head_square"][:, head], summary["slope_square"])
                told += [agreement(summary, head), 0.25 * steady]
        if self.config.role_aware:
            told += [(facts["role"] == place).astype(facts["role"].dtype) for place in range(len(ROLES))]
        if self.config.adaptation:
            told.append(state["adapted"])
        return told

    def share(
        self, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> dict[str, Float[Array, "tensors ..."]]:
        shared = {"matrices": facts["matrix"]} if self.config.reference_matrices else {}
        if self.network is not None:
            tokens = self._tokens(summary, moments, facts, clock, state)
            shared["numerator"], shared["denominator"] = self.network.summarise(tokens)
        return shared

    def recall(
        self, summary: Rows, network: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        level, next_level, square_weight = self._levels(moments, facts, state)
        schedule, _ = self._schedule(clock)
        tokens = self._tokens(summary, moments, facts, clock, state)
        seen, next_state = [tokens], {"square_weight": square_weight, "level": next_level}
        if self.time is not None:
            recalled, next_state["numerator"], next_state["denominator"] = self.time(
                tokens, state["numerator"], state["denominator"]
            )
            seen.append(recalled)
        if self.network is not None:
            seen.append(self.network.read(tokens, network["numerator"], network["denominator"]))
        flat = jnp.concatenate(seen, axis=2).reshape(tokens.shape[0], self.context_in.shape[1])
        mixed = jnp.tanh(jnp.einsum("hx,tx->th", self.context_in, flat) + self.context_bias)
        out = jnp.einsum("oh,th->to", self.context_out, mixed)

        remembered = self.read_bias.shape[0]
        key, query, film, _ = jnp.split(
            out[:, 1:], [remembered, 2 * remembered, 2 * remembered + self.config.hidden], axis=1
        )
        factor = self.config.step_bound * jnp.tanh(out[:, 0])
        if self.config.adaptation:
            moved = state["adapted"] + ADAPTATION * jnp.tanh(out[:, -1])
            adapted = jnp.minimum(jnp.maximum(moved, -1), 1)
            next_state["adapted"] = adapted
            factor = factor + self.config.adaptation * adapted
        told, weight = self.coordinates.recall(key, query, self.read_bias, self._kept(), facts, state)
        told_of_moment, moment = self.moment.recall(moments, facts, discount(self.second_rate), state, next_level)
        context = {
            "step": self._prior(summary, facts) * schedule * self._reduction(network, facts, clock) * jnp.exp(factor),
            "unbias_square": 1 / square_weight,
            "level": level,
            "film": film,
            **told,
            **told_of_moment,
        }
        return context, {**next_state, **weight, **moment}

    def _kept(self) -> Float[Array, " remembered"]:
        """λ of each feature of the coordinate's memory: its head's."""
        return jnp.repeat(discount(self.momentum_rate), self.config.memory_features)

    def decode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks ..."]],
        valid: Bool[Array, "chunks length"],
        context: Rows,
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks ..."]]]:
        level = context["level"]
        unbiased, moment = self.moment.decode(
            memory, grad, valid, discount(self.second_rate), context["unbias_square"], context
        )
        root = jax.lax.rsqrt(unbiased + EPSILON**2 * level[:, None] + TINY)
        slope = grad * root
        recalled = self.coordinates.decode(memory, grad, root, self.read_bias, self._kept(), context)
        heads = [mean * root for mean in recalled.heads]
        attended = recalled.attended * root

        # Even in the sign of the gradient, so that the network decides how far and never which way.
        features = jnp.stack(
            [
                soft_clip(jnp.square(slope), 3.0),
                *(soft_clip(jnp.square(head), 3.0) for head in heads),
                *(soft_clip(slope * head, 3.0) for head in heads[:1]),
                0.25 * relative_log(unbiased, level[:, None]),
            ]
        )
        bias = self.coordinate_bias[:, None] + context["film"].T
        remembered: dict[str, Float[Array, "chunks ..."]] = {}
        if self.chunks is not None:
            said, remembered = self.chunks(features, valid, memory)
            bias = bias + said
        hidden = jnp.maximum(jnp.tensordot(self.coordinate_in, features, axes=1) + bias[:, :, None], 0)
        bend = self.config.bend_bound * jnp.tanh(jnp.tensordot(self.coordinate_out, hidden, axes=1))
        direction = (1 + bend[0]) * attended
        if heads:
            direction = direction + (self.config.nesterov + bend[1]) * soft_clip(slope, 3.0)
        for place, head in enumerate(heads[1:], 2):
            direction = direction + bend[place] * head
        if self.config.cautious:
            against = jnp.maximum(-direction * soft_clip(slope, 3.0), 0)
            direction = direction * (1 - self.config.cautious * against / (against + CAUTION))
        return direction, {**recalled.memory, **moment, **remembered}

    def scale(self, context: Rows, spread: Rows) -> Float[Array, " tensors"]:
        rms = jnp.maximum(jnp.sqrt(spread["square"] / spread["count"] + TINY), SPREAD_FLOOR)
        step = context["step"]
        if self.config.signal_to_noise:
            step = step * jnp.exp(self.config.signal_to_noise * jnp.log(rms * (1 / USUAL_SPREAD)))
        return step / rms


def _sizes(summary: Rows, facts: Rows) -> tuple[Float[Array, " tensors"], Float[Array, " tensors"]]:
    """The tensor's root mean square, and the least that a matrix's step is relative to."""
    rms = jnp.sqrt(summary["param_square"] / summary["count"] + TINY)
    # 0.3 / sqrt(fan-in), with the fan-in of a square matrix of as many coordinates: the same for any transpose.
    return rms, 0.3 * jnp.exp(-0.25 * jnp.log(facts["coordinates"]))


def agreement(summary: Rows, head: int) -> Float[Array, " tensors"]:
    """The cosine of the angle between the gradient and a head's mean of earlier ones, both over the same root.

    Minus its sign is that of the derivative of the loss with respect to the last step's size (Baydin et al. 2018, arXiv
    1703.04782).
    """
    product, squares = summary["product"][:, head], summary["slope_square"] * summary["head_square"][:, head]
    return product * jax.lax.rsqrt(squares + TINY)


def relative_log(x: Float[Array, "*shape"], reference: Float[Array, "*shape2"]) -> Float[Array, "*shape3"]:
    """log(x / reference), within ±log(1e6), and 0 where both are 0."""
    return jnp.log((x + 1e-6 * reference + TINY) / (reference + 1e-6 * x + TINY))
