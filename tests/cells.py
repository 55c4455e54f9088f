"""Cells made for tests: each asks something else of the compiler and of the runtimes."""

import functools
from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax.numpy as jnp
from jaxtyping import Array

from mnemo_compile.cell import (
    AbstractCell,
    cell_config,
    Chunks,
    Composition,
    MemorySlot,
    Rows,
    sum_of_squares,
    Tensors,
    Tiles,
)
from mnemo_compile.step import Role, ROLES, TILED
from tests.helpers import learned, learned_cell

Named = dict[str, Array]


def log_mean_square(tensors: Tensors) -> Array:
    """log(1 + mean square of the gradient) of each tensor."""
    return jnp.log1p(tensors.moments["square"] / tensors.shape["coordinates"])


class Bare(AbstractCell):
    """No memory, no state, and none of the optional phases."""

    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=16)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=())

    def measure(self, param: Array, grad: Array) -> Named:
        return {"sum": jnp.sum(grad, axis=1)}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        size = jnp.abs(chunks.grad)
        return 0.01 * jnp.log1p(size) * jnp.sign(jnp.where(size > 1e-30, chunks.grad, 0)), {}


class Trio(AbstractCell):
    """Three averages of the gradient per coordinate, mixed by a matrix. There is no state and no summary."""

    rates: Array = eqx.field(default_factory=lambda: jnp.array([0.5, 0.9, 0.99]))
    mix: Array = eqx.field(default_factory=lambda: jnp.array([[1.0, -0.5, 0.2], [0.3, 0.4, 0.1], [-0.2, 0.6, 0.5]]))
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=2)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(static=True, default=(MemorySlot("three", (3,)),))

    def measure(self, param: Array, grad: Array) -> Named:
        return {"largest": jnp.max(jnp.abs(grad), axis=1)}

    def recall(self, tensors: Tensors) -> tuple[Named, Named]:
        return {"size": 1 / (1 + tensors.moments["largest"])}, {}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        param, grad = chunks.param, chunks.grad
        three = chunks.memory["three"] * self.rates + (1 - self.rates) * grad[..., None]
        mixed = jnp.tanh(jnp.einsum("rck,kj->rcj", three, self.mix))
        sign = jnp.where((param > 0) & jnp.logical_not(grad == 0), jnp.sign(param), -jnp.floor(grad))
        return 0.1 * context["size"][:, None] * (jnp.max(mixed, axis=2) + 0.01 * sign), {"three": three}


class Tracks(AbstractCell):
    """Memory of several shapes, and a state that is not zero at first."""

    mixing: Array = eqx.field(default_factory=lambda: jnp.array([[1.0, -0.5, 0.2], [0.3, 0.4, 0.1], [-0.2, 0.6, 0.5]]))
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=3)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(
        static=True, default=(MemorySlot("tracks", (3,)), MemorySlot("outer", (2, 2)), MemorySlot("seen"))
    )

    def initial_state(self) -> Named:
        return {"decay": jnp.array([0.5, 0.9, 0.99]), "lowest": jnp.array(jnp.inf)}

    def measure(self, param: Array, grad: Array) -> Named:
        return {"square": jnp.sum(grad * grad, axis=1), "largest": jnp.max(jnp.abs(grad), axis=1)}

    def encode(self, chunks: Chunks, tensors: Tensors) -> Named:
        present = chunks.valid.astype(chunks.grad.dtype)
        tracks = jnp.sum(chunks.memory["tracks"] * tensors.state["decay"][:, None, :] * present[:, :, None], axis=1)
        return {"tracks": tracks, "count": jnp.sum(present, axis=1), "chunks": jnp.ones(present.shape[0])}

    def recall(self, tensors: Tensors) -> tuple[Named, Named]:
        summary, decay = tensors.summary, tensors.state["decay"]
        level = log_mean_square(tensors)
        mixed = jnp.einsum("ij,tj->ti", self.mixing, jnp.tanh(summary["tracks"] / summary["count"][:, None]))
        weight = mixed / summary["chunks"][:, None] + jnp.sin(tensors.clock["step"])[:, None]
        context = {"weight": weight, "size": 0.01 / (1.5 + level), "decay": decay}
        return context, {"decay": 0.9 * decay + 0.05, "lowest": jnp.minimum(tensors.state["lowest"], level)}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        param, memory, small = chunks.param, chunks.memory, jnp.clip(chunks.grad, -1, 1)
        tracks = context["decay"][:, None, :] * memory["tracks"] + jnp.expm1(small)[:, :, None]
        outer = 0.5 * memory["outer"] + jnp.stack([small, param], axis=2)[:, :, None, :]
        pulled = jnp.einsum("clk,ck->cl", tracks, context["weight"]) + jnp.max(outer, axis=(2, 3))
        direction = context["size"][:, None] * jnp.where(jnp.abs(small) >= 1e-3, pulled, param)
        return direction, {"tracks": tracks, "outer": outer, "seen": memory["seen"] + jnp.abs(small)}


OWN: tuple[Role, ...] = ("vector", "embedding")


class Levels(AbstractCell):
    """Memory of chunks, in bfloat16 and of some roles only, and a sum over the network."""

    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=3)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(
        static=True,
        default=(
            MemorySlot("narrow", dtype="bfloat16"),
            MemorySlot("pair", (2,), dtype="bfloat16"),
            MemorySlot("own", roles=OWN),
            MemorySlot("energy", per="chunk"),
            MemorySlot("tokens", (2, 3), per="chunk"),
        ),
    )

    def initial_state(self) -> Named:
        return {"loudest": jnp.zeros(2)}

    def measure(self, param: Array, grad: Array) -> Named:
        return {"square": sum_of_squares(grad), "places": grad * grad}

    def encode(self, chunks: Chunks, tensors: Tensors) -> Named:
        memory = chunks.memory
        tokens = jnp.sum(memory["tokens"], axis=1) / (1 + memory["energy"][:, None])
        return {
            "tokens": tokens,
            "count": jnp.sum(chunks.valid.astype(chunks.grad.dtype), axis=1),
            "narrow": jnp.sum(memory["narrow"] ** 2, axis=1),
            "size": jnp.sum(jnp.abs(chunks.param), axis=1),
        }

    def share(self, tensors: Tensors) -> Named:
        summary, level = tensors.summary, log_mean_square(tensors)
        sizes = jnp.stack([summary["size"], summary["narrow"] + tensors.shape["matrix"]], axis=1)
        levels = jnp.stack([level, jnp.ones_like(level)], axis=1) + sizes / summary["count"][:, None]
        levels = levels + 0.1 * tensors.state["loudest"]
        return {"levels": levels, "clock": jnp.cos(tensors.clock["step"])}

    def recall(self, tensors: Tensors) -> tuple[Named, Named]:
        summary, network, level = tensors.summary, tensors.network, log_mean_square(tensors)
        mean = network["levels"][:, 0] / network["levels"][:, 1]
        is_own = sum((tensors.shape["role"] == ROLES.index(role)).astype(level.dtype) for role in OWN)
        token = jnp.tanh(jnp.sum(summary["tokens"], axis=1) + summary["narrow"] / summary["count"])
        loudest = jnp.maximum(tensors.state["loudest"], jnp.stack([level, mean], axis=1))
        context = {
            "size": (1 + 0.1 * token) / (1 + loudest[:, 0] + mean),
            "own": jnp.asarray(is_own) + 0.1 * network["clock"] * jnp.asarray(is_own),
            "places": 1 / (1 + tensors.moments["places"]),
        }
        return context, {"loudest": loudest}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        memory, small = chunks.memory, jnp.tanh(chunks.grad * context["places"])
        present = chunks.valid.astype(small.dtype)
        narrow = 0.9 * memory["narrow"] + small
        pair = 0.5 * memory["pair"] + jnp.stack([small, 0.3 * chunks.param], axis=2)
        own = context["own"][:, None] * (0.8 * memory["own"] + jnp.abs(small) * present)
        energy = 0.9 * memory["energy"] + jnp.sum(small * small, axis=1) / jnp.sum(present, axis=1)
        seen = jnp.stack([jnp.sum(small, axis=1), energy, jnp.sum(present, axis=1)], axis=1)
        tokens = 0.7 * memory["tokens"] + jnp.stack([seen, jnp.tanh(seen)], axis=1)
        root = jnp.sqrt(energy + 0.01)[:, None]
        direction = (narrow + 0.1 * pair[:, :, 0] - own + 0.01 * pair[:, :, 1]) / (root + 0.1 * tokens[:, 1, 2:])
        step = 0.01 * context["size"][:, None] * direction
        return step, {"narrow": narrow, "pair": pair, "own": own, "energy": energy, "tokens": tokens}

    def decay(self, context: Rows, clock: Rows) -> Array:
        return 0.01 * context["size"]


class Sampled(AbstractCell):
    """A summary of memory of every kind: of coordinates and chunks, narrow, and of some roles only."""

    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=3)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(
        static=True,
        default=(
            MemorySlot("narrow", dtype="bfloat16"),
            MemorySlot("pair", (2,)),
            MemorySlot("own", roles=OWN),
            MemorySlot("peaks", (3,), per="chunk", roles=OWN),
        ),
    )

    def measure(self, param: Array, grad: Array) -> Named:
        return {"square": sum_of_squares(grad)}

    def encode(self, chunks: Chunks, tensors: Tensors) -> Named:
        memory = chunks.memory
        memories = jnp.sum(memory["pair"], axis=2) + memory["own"] + memory["narrow"]
        return {
            "size": jnp.sum(jnp.tanh(memories + chunks.param + chunks.grad), axis=1)
            + jnp.tanh(jnp.sum(memory["peaks"], axis=1)),
            "count": jnp.sum(chunks.valid.astype(chunks.grad.dtype), axis=1),
        }

    def recall(self, tensors: Tensors) -> tuple[Named, Named]:
        mean = tensors.summary["size"] / tensors.summary["count"]
        return {"size": (1 + 0.1 * jnp.tanh(mean)) / (1 + log_mean_square(tensors))}, {}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        memory, small = chunks.memory, jnp.tanh(chunks.grad)
        narrow = 0.9 * memory["narrow"] + small
        pair = 0.5 * memory["pair"] + jnp.stack([small, 0.3 * chunks.param], axis=2)
        own = 0.8 * memory["own"] + jnp.abs(small)
        mean = jnp.sum(small, axis=1)
        peaks = 0.9 * memory["peaks"] + jnp.stack([mean, jnp.tanh(mean), mean * mean], axis=1)
        step = 0.01 * context["size"][:, None] * (pair[:, :, 0] + narrow + own + 0.1 * peaks[:, 2:])
        return step, {"narrow": narrow, "pair": pair, "own": own, "peaks": peaks}


class Tiled(AbstractCell):
    """Two memories of the gradient, one of them in bfloat16, small tiles, and a step that depends on the tensor."""

    rate: Array = eqx.field(default_factory=lambda: jnp.array(0.9))
    """An array, so that memory is never halfway between two numbers of bfloat16."""
    config: Any = eqx.field(static=True, default=None)
    chunk_length: int = eqx.field(static=True, default=8)
    sample_chunks: int = eqx.field(static=True, default=3)
    memory_slots: tuple[MemorySlot, ...] = eqx.field(
        static=True,
        default=(
            MemorySlot("fast"),
            MemorySlot("slow", dtype="bfloat16"),
            MemorySlot("square", roles=("vector", "embedding", "head")),
        ),
    )

    @property
    def tile(self) -> int:
        return 12

    def measure(self, param: Array, grad: Array) -> Named:
        return {"square": sum_of_squares(grad), "size": jnp.sum(jnp.abs(param), axis=1)}

    def recall(self, tensors: Tensors) -> tuple[Named, Named]:
        size = tensors.moments["size"] / tensors.shape["coordinates"]
        return {"step": 0.1 * (size + 0.1) / (1 + 0.1 * tensors.clock["step"])}, {}

    def decode(self, chunks: Chunks, context: Rows) -> tuple[Array, Named]:
        fast, slow = self._averages(chunks.grad, chunks.memory)
        square = 0.9 * chunks.memory["square"] + chunks.grad * chunks.grad
        direction = (fast + 0.1 * slow) / (jnp.sqrt(square) + 1e-20)
        return context["step"][:, None] * direction, {"fast": fast, "slow": slow, "square": square}

    def compose(self, tiles: Tiles, context: Rows) -> Composition:
        fast, slow = self._averages(tiles.grad, tiles.memory)
        return Composition(fast + 0.1 * slow, {"fast": fast, "slow": slow}, context["step"])

    def _averages(self, grad: Array, memory: Rows) -> tuple[Array, Array]:
        return 0.5 * memory["fast"] + grad, self.rate * memory["slow"] + (1 - self.rate) * grad


EVERYTHING = {
    "kind": "mnemosyne",
    "coordinate_wise": ["vector", "embedding"],
    "memory_features": 2,
    "second_moments": "factored",
    "state_dtype": "bfloat16",
    "pooling_levels": 1,
    "tensor_heads": 2,
    "chunk_memory": 3,
    "network_attention": True,
    "kernel": "hyperbolic",
    "token": 4,
    "random_features": 4,
    "agreement": True,
    "role_aware": True,
    "adaptation": 0.5,
    "prior": {"tile": 12, "nesterov": 0.3, "guard": 0.5, "warm_up": 0.2, "annealing": "linear", "last_step": 0.1},
}
"""Mnemosyne with every variation that the default one lacks."""
PRIOR = {"kind": "mnemosyne", "network": False, "momentum": [0.9], "chunk_length": 8, "prior": {"tile": 16}}
"""A prior with small tiles."""


@st.composite
def priors(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of any prior."""
    return {
        "tile": draw(st.sampled_from([0, 3, 7])),
        "nesterov": draw(st.sampled_from([0.0, 0.4])),
        "guard": draw(st.sampled_from([0.0, 0.25])),
        "warm_up": draw(st.sampled_from([0.02, 0.2])),
        "last_step": draw(st.sampled_from([0.01, 0.5])),
        "pretrained": draw(st.sampled_from([0.25, 1.0])),
        "annealing": draw(st.sampled_from(["cosine", "linear"])),
    }


@st.composite
def variants(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration of Mnemosyne of any variant, with small sizes."""
    momentum = draw(st.sampled_from([[], [0.9], [0.9, 0.98], [0.5, 0.9, 0.99]]))
    prior = draw(priors())
    own = [role for role in ROLES if not (prior["tile"] and role in TILED)]
    roles = draw(st.one_of(st.just([]), st.lists(st.sampled_from(own), unique=True))) if momentum else []
    return {
        "kind": "mnemosyne",
        "chunk_length": 8,
        "sample_chunks": 5,
        "token": draw(st.sampled_from([2, 5])),
        "meta_tokens": draw(st.integers(1, 3)),
        "random_features": draw(st.sampled_from([1, 4])),
        "kernel": draw(st.sampled_from(["positive", "hyperbolic", "relu"])),
        "momentum": momentum,
        "coordinate_wise": roles,
        "memory_features": draw(st.sampled_from([1, 2])),
        "second_moments": draw(st.sampled_from(["full", "factored", "none"])),
        "state_dtype": draw(st.sampled_from(["float32", "bfloat16"])),
        "pooling_levels": draw(st.sampled_from([1, 2])),
        "tensor_memory": draw(st.booleans()),
        "tensor_heads": draw(st.sampled_from([1, 2])),
        "chunk_memory": draw(st.sampled_from([0, 3])),
        "network_attention": draw(st.booleans()),
        "agreement": bool(momentum) and draw(st.booleans()),
        "role_aware": draw(st.booleans()),
        "adaptation": draw(st.sampled_from([0.0, 0.5])),
        "network": draw(st.sampled_from([True, True, False])),
        "prior": prior,
    }


@functools.cache
def cell_of(kind: str) -> AbstractCell:
    """The cell of this name, with random weights if it is a Mnemosyne."""
    if kind == "everything":
        return learned(cell_config(EVERYTHING).build())
    if kind == "prior":
        return cell_config(PRIOR).build()
    made = {"bare": Bare, "trio": Trio, "tracks": Tracks, "levels": Levels, "tiled": Tiled, "sampled": Sampled}
    if kind in made:
        return made[kind]()
    if kind == "lstm":
        return cell_config({"kind": "lstm", "hidden": 3}).build()
    return learned_cell() if kind == "mnemosyne" else cell_config({"kind": kind}).build()
