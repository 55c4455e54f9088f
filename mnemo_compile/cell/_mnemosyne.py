"""Tensor-wise Mnemosyne: implicit attention over a tensor's coordinates and over the steps so far."""

from collections.abc import Mapping
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Bool, Float

from ._abstract import AbstractCell, MemorySlot, Rows
from ._config import AbstractCellConfig, register_cell, Size
from ._features import Kernel
from ._memory import AssociativeMemory, discount, log_rate
from ._moments import sum_of_squares
from ._pooling import ChunkEncoder, dense, TensorPooling

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]
Bound = Annotated[float, pydantic.Field(ge=0, le=4)]


@register_cell
class MnemosyneConfig(AbstractCellConfig):
    """What determines a Mnemosyne cell before meta-training: sizes, priors, bounds."""

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
    momentum: tuple[Fraction, Fraction] = (0.9, 0.98)
    """Initial discounts λ of the coordinate's two gradient memories."""
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

    def build(self) -> "Mnemosyne":
        return Mnemosyne(self)


TINY = 1e-36
WARM_UP = 0.02
"""Share of the horizon over which the step grows; without a horizon it grows over `WARM_UP_STEPS`."""
WARM_UP_STEPS = 20.0
LAST_STEP = 0.01
"""Share of the step that is left at the horizon and after it."""
EPSILON = 1e-5
"""Floor of a coordinate's second-moment root, relative to the tensor's root mean square."""
SPREAD_FLOOR = 0.2
"""The direction is divided by its root mean square or by this, whichever is larger: of a gradient that touches few
coordinates, or none of the sampled ones, the step stays that of Adam times at most 1 / SPREAD_FLOOR."""


def soft_clip(x: Float[Array, "*shape"], limit: float) -> Float[Array, "*shape"]:
    """x for |x| ≪ limit, ±limit far out."""
    return x * jax.lax.rsqrt(1 + jnp.square(x * (1 / limit)))


class Mnemosyne(AbstractCell):
    """Mnemosyne (Jain et al. 2023, arXiv 2302.01128) with keys and queries of the coordinate memory a tensor's own.

    A coordinate keeps two discounted sums of its gradients, m_i ← λ_i m_i + φ(k_i) g, and one of their squares. The
    tensor keeps the normalisers ψ_i ← λ_i ψ_i + φ(k_i). The read Σ φ(q_i) m_i / Σ φ(q_i) ψ_i is the memory's attention
    over past gradients; with the networks at zero φ(k) = 1 and the read over the root of the second moment is Adam's
    direction. Keys, queries, step factor and the coordinate network's bias come from the tensor's meta-tokens, through
    attention over the coordinates (`ChunkEncoder`, `TensorPooling`) and over time (`AssociativeMemory`).
    """

    chunk_encoder: ChunkEncoder
    pooling: TensorPooling
    time: AssociativeMemory
    momentum_rate: Float[Array, " two"]
    second_rate: Float[Array, ""]
    read_bias: Float[Array, " two"]
    facts_in: Float[Array, "token facts"]
    context_in: Float[Array, "context tokens"]
    context_bias: Float[Array, " context"]
    context_out: Float[Array, "outputs context"]
    coordinate_in: Float[Array, "hidden features"]
    coordinate_bias: Float[Array, " hidden"]
    coordinate_out: Float[Array, "three hidden"]
    config: MnemosyneConfig = eqx.field(static=True)
    chunk_length: int = eqx.field(static=True)
    sample_chunks: int = eqx.field(static=True)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True)

    def __init__(self, config: MnemosyneConfig):
        keys = jax.random.split(jax.random.key(config.seed), 6)
        c = config
        self.chunk_encoder = ChunkEncoder(7, c.token, c.random_features, c.kernel, key=keys[0])
        self.pooling = TensorPooling(c.token, c.meta_tokens, c.random_features, c.kernel, key=keys[1])
        self.time = AssociativeMemory(c.token, c.meta_tokens, c.random_features, c.kernel, key=keys[2])
        self.momentum_rate = jnp.array([log_rate(m) for m in c.momentum])
        self.second_rate = jnp.array(log_rate(c.second_moment))
        # The fast memory speaks first: the slow one's normaliser is several times as large.
        self.read_bias = jnp.array([0.0, -5.0])
        self.facts_in = dense(keys[3], c.token, 10)
        self.context_in = dense(keys[4], c.context, 2 * c.meta_tokens * c.token)
        self.context_bias = jnp.zeros(c.context)
        self.context_out = jnp.zeros((5 + c.hidden, c.context))
        self.coordinate_in = dense(keys[5], c.hidden, 5)
        self.coordinate_bias = jnp.zeros(c.hidden)
        self.coordinate_out = jnp.zeros((3, c.hidden))
        self.config = config
        self.chunk_length = c.chunk_length
        self.sample_chunks = c.sample_chunks
        self.memory_slots = (MemorySlot("fast"), MemorySlot("slow"), MemorySlot("square"))

    def initial_state(self) -> dict[str, Float[Array, "..."]]:
        numerator, denominator = self.time.initial_state()
        return {
            "numerator": numerator,
            "denominator": denominator,
            "weight": jnp.zeros(2),
            "square_weight": jnp.zeros(()),
            "level": jnp.zeros(()),
        }

    def measure(self, grad: Float[Array, "chunks length"]) -> dict[str, Float[Array, " chunks"]]:
        return {"square": sum_of_squares(grad), "absolute": jnp.sum(jnp.abs(grad), axis=1)}

    def encode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks length"]],
        valid: Bool[Array, "chunks length"],
        moments: Rows,
        facts: Rows,
        state: Rows,
    ) -> dict[str, Float[Array, "chunks ..."]]:
        present = valid.astype(grad.dtype)
        count = jnp.sum(present, axis=1)
        kept = discount(self.second_rate)
        square = kept * memory["square"] + grad * grad
        unbiased = square * (1 / (kept * state["square_weight"] + 1))[:, None]
        level = moments["square"] / facts["coordinates"]
        root = jax.lax.rsqrt(unbiased + EPSILON**2 * level[:, None] + TINY)
        # From the first step on the normalisers exceed exp(-1), the least that a step writes.
        unbias = 1 / jnp.maximum(state["weight"], 0.1)
        slope = grad * root
        fast = memory["fast"] * unbias[:, 0:1] * root
        slow = memory["slow"] * unbias[:, 1:2] * root
        param_square = jnp.sum(param * param, axis=1)
        features = jnp.stack(
            [
                soft_clip(grad * jax.lax.rsqrt(level + TINY)[:, None], 3.0),
                soft_clip(slope, 3.0),
                soft_clip(fast, 3.0),
                soft_clip(slow, 3.0),
                soft_clip(slope * fast, 3.0),
                0.25 * relative_log(unbiased, level[:, None]),
                soft_clip(param * jax.lax.rsqrt(param_square / count + TINY)[:, None], 3.0),
            ]
        )
        numerator, denominator = self.pooling.summarise(self.chunk_encoder(features, valid))
        return {"numerator": numerator, "denominator": denominator, "param_square": param_square, "count": count}

    def recall(
        self, summary: Rows, moments: Rows, facts: Rows, clock: Rows, state: Rows
    ) -> tuple[dict[str, Float[Array, "tensors ..."]], dict[str, Float[Array, "tensors ..."]]]:
        coordinates, matrix = facts["coordinates"], facts["matrix"]
        level = moments["square"] / coordinates
        spread = jnp.square(moments["absolute"] * jax.lax.rsqrt(moments["square"] + TINY)) / coordinates
        rms = jnp.sqrt(summary["param_square"] / summary["count"] + TINY)

        kept_square = discount(self.second_rate)
        square_weight = kept_square * state["square_weight"] + 1
        next_level = kept_square * state["level"] + level

        step, total = clock["step"], clock["total"]
        known = (total > 0).astype(step.dtype)
        horizon = jnp.maximum(total, 1)
        progress = jnp.minimum(step / horizon, 1)
        warm_up = jnp.where(total > 0, jnp.maximum(WARM_UP * horizon, 1), WARM_UP_STEPS)
        cosine = LAST_STEP + (1 - LAST_STEP) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        schedule = jnp.minimum((step + 1) / warm_up, 1) * jnp.where(total > 0, cosine, 1)

        # 0.3 / sqrt(fan-in), with the fan-in of a square matrix of as many coordinates: the same for any transpose.
        floor = 0.3 * jnp.exp(-0.25 * jnp.log(coordinates))
        prior = jnp.where(
            matrix > 0,
            self.config.matrix_step * jnp.maximum(rms, floor),
            self.config.vector_step * jnp.maximum(rms, 1),
        )

        described = jnp.stack(
            [
                matrix,
                0.1 * jnp.log(coordinates),
                0.2 * jnp.log(facts["aspect"]),
                known,
                progress * known,
                schedule,
                soft_clip(0.2 * jnp.log(step + 1), 2.0),
                0.2 * jnp.log(spread + 1e-6),
                0.25 * relative_log(level, next_level / square_weight),
                soft_clip(0.5 * jnp.log(rms / floor + 1e-3), 2.0),
            ]
        )
        tokens = self.pooling.read(summary["numerator"], summary["denominator"])
        tokens = jnp.tanh(tokens + jnp.einsum("df,ft->td", self.facts_in, described)[:, None, :])
        recalled, numerator, denominator = self.time(tokens, state["numerator"], state["denominator"])
        flat = jnp.concatenate([tokens, recalled], axis=2).reshape(tokens.shape[0], self.context_in.shape[1])
        mixed = jnp.tanh(jnp.einsum("hx,tx->th", self.context_in, flat) + self.context_bias)
        out = jnp.einsum("oh,th->to", self.context_out, mixed)

        write = jnp.exp(jnp.tanh(out[:, 1:3]))
        kept = discount(self.momentum_rate)
        weight = kept * state["weight"] + write
        query = jnp.exp(self.read_bias + 2 * jnp.tanh(out[:, 3:5]))
        context = {
            "step": prior * schedule * jnp.exp(self.config.step_bound * jnp.tanh(out[:, 0])),
            "write": write,
            "unbias": 1 / weight,
            "read": query / jnp.sum(query * weight, axis=1)[:, None],
            "unbias_square": 1 / square_weight,
            "level": level,
            "film": out[:, 5:],
        }
        return context, {
            "numerator": numerator,
            "denominator": denominator,
            "weight": weight,
            "square_weight": square_weight,
            "level": next_level,
        }

    def decode(
        self,
        param: Float[Array, "chunks length"],
        grad: Float[Array, "chunks length"],
        memory: Mapping[str, Float[Array, "chunks length"]],
        context: Rows,
    ) -> tuple[Float[Array, "chunks length"], dict[str, Float[Array, "chunks length"]]]:
        kept = discount(self.momentum_rate)
        write, unbias, read, level = context["write"], context["unbias"], context["read"], context["level"]
        fast = kept[0] * memory["fast"] + write[:, 0:1] * grad
        slow = kept[1] * memory["slow"] + write[:, 1:2] * grad
        square = discount(self.second_rate) * memory["square"] + grad * grad

        unbiased = square * context["unbias_square"][:, None]
        root = jax.lax.rsqrt(unbiased + EPSILON**2 * level[:, None] + TINY)
        slope = grad * root
        fast_slope = fast * unbias[:, 0:1] * root
        slow_slope = slow * unbias[:, 1:2] * root
        attended = (read[:, 0:1] * fast + read[:, 1:2] * slow) * root

        # Even in the sign of the gradient, so that the network decides how far and never which way.
        features = jnp.stack(
            [
                soft_clip(jnp.square(slope), 3.0),
                soft_clip(jnp.square(fast_slope), 3.0),
                soft_clip(jnp.square(slow_slope), 3.0),
                soft_clip(slope * fast_slope, 3.0),
                0.25 * relative_log(unbiased, level[:, None]),
            ]
        )
        bias = self.coordinate_bias[:, None] + context["film"].T
        hidden = jnp.maximum(jnp.tensordot(self.coordinate_in, features, axes=1) + bias[:, :, None], 0)
        bend = self.config.bend_bound * jnp.tanh(jnp.tensordot(self.coordinate_out, hidden, axes=1))
        direction = (1 + bend[0]) * attended + bend[1] * soft_clip(slope, 3.0) + bend[2] * slow_slope
        return direction, {"fast": fast, "slow": slow, "square": square}

    def scale(self, context: Rows, spread: Rows) -> Float[Array, " tensors"]:
        rms = jnp.sqrt(spread["square"] / spread["count"] + TINY)
        return context["step"] / jnp.maximum(rms, SPREAD_FLOOR)


def relative_log(x: Float[Array, "*shape"], reference: Float[Array, "*shape2"]) -> Float[Array, "*shape3"]:
    """log(x / reference), within ±log(1e6), and 0 where both are 0."""
    return jnp.log((x + 1e-6 * reference + TINY) / (reference + 1e-6 * x + TINY))
