"""The optimizer: gathers tensors into rows of chunks, runs the cell's phases over them, and gives back the updates."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

from . import _phases
from ._phases import CHUNK_LENGTH, INPUTS, MEMORY, SAMPLE_CHUNKS, STATE

Rows = Mapping[str, jax.Array]


class MnemosyneState(NamedTuple):
    """State of the transformation."""

    step: jax.Array
    """Steps taken."""
    skipped: jax.Array
    """Steps refused because a gradient was not finite."""
    memory: dict[str, Any]
    """For each slot a tree like the parameters', in float32."""
    recall: dict[str, jax.Array]
    """What is remembered of each tensor, in rows, in the order of the tree's leaves."""


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return load_file(pathlib.Path(__file__).with_name("weights.safetensors"))


def mnemosyne(
    lr: float | jax.Array | Callable[[jax.Array], Any] = 1.0,
    weight_decay: float | jax.Array = 0.0,
    total_steps: int | None = None,
    block_size: int = 65536,
) -> optax.GradientTransformationExtraArgs:
    """A learned optimizer. Its step size is part of what it has learned, so there is no learning rate to find.

    **Arguments:**

    - `lr`: multiplies the step; a number or a schedule, called with the number of steps taken.
    - `weight_decay`: decoupled; a step moves a parameter by `-lr * weight_decay * parameter` besides.
    - `total_steps`: how many steps will be taken, if that is known. Steps then shrink towards the end.
    - `block_size`: coordinates that are worked on at once, which bounds the workspace.

    **Returns:**

    A transformation whose `update` needs the parameters. Arithmetic and state are float32. A step in which any gradient
    is not finite gives updates of zero and changes no state but the count `skipped`.
    """
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    if total_steps is not None and (not isinstance(total_steps, int) or total_steps < 1):
        raise ValueError(f"total_steps must be a positive integer, or None if it is not known, not {total_steps!r}")
    if not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"block_size counts coordinates and must be a positive integer, not {block_size!r}")
    block = max(block_size // CHUNK_LENGTH, 1) * CHUNK_LENGTH

    def init(params: optax.Params) -> MnemosyneState:
        leaves = jax.tree.leaves(params)
        for leaf in leaves:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(f"a parameter has dtype {jnp.result_type(leaf)}; only floating point can be trained")
        tensors = sum(1 for leaf in leaves if jnp.size(leaf))
        return MnemosyneState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            memory={slot: jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), params) for slot in MEMORY},
            recall={
                name: jnp.tile(_weights()[f"initial.{name}"], (tensors, *(1 for _ in shape)))
                for name, shape in STATE.items()
            },
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, MnemosyneState]:
        del extra_args
        if params is None:
            raise ValueError("mnemosyne needs the parameters: call update(grads, state, params)")
        leaves, tree = jax.tree.flatten(params)
        trees = {"param": leaves, "grad": tree.flatten_up_to(updates)}
        trees.update((f"memory.{slot}", tree.flatten_up_to(state.memory[slot])) for slot in MEMORY)
        present = [place for place, leaf in enumerate(leaves) if jnp.size(leaf)]
        # Small tensors first, so that packs hold consecutive ones.
        order = sorted(range(len(present)), key=lambda row: jnp.size(leaves[present[row]]) > block)
        places = [present[row] for row in order]
        back = np.argsort(np.array(order, np.int64)) if order else np.zeros(0, np.int64)
        recall = {name: value[np.array(order, np.int64)] for name, value in state.recall.items()}
        chunked = {name: [jnp.asarray(arrays[place]) for place in places] for name, arrays in trees.items()}
        rate = lr(state.step) if callable(lr) else lr
        hyper = {"clock.total": total_steps or 0, "hyper.lr": rate, "hyper.weight_decay": weight_decay}
        results, next_recall, finite = _step(chunked, recall, state.step, hyper, block)

        def unflatten(name: str, old: list[jax.Array]) -> Any:
            new = dict(zip(places, results[name], strict=True))
            return jax.tree.unflatten(tree, [new.get(place, value) for place, value in enumerate(old)])

        counted = finite.astype(jnp.int32)
        return unflatten("param", [jnp.zeros_like(leaf) for leaf in leaves]), MnemosyneState(
            step=state.step + counted,
            skipped=state.skipped + 1 - counted,
            memory={slot: unflatten(f"memory.{slot}", trees[f"memory.{slot}"]) for slot in MEMORY},
            recall={name: value[back] for name, value in next_recall.items()},
        )

    return optax.GradientTransformationExtraArgs(init, update)


Chunked = dict[str, list[jax.Array]]


def _step(
    chunked: Chunked, recall: dict[str, jax.Array], step: jax.Array, hyper: dict[str, Any], block: int
) -> tuple[dict[str, list[jax.Array]], dict[str, jax.Array], jax.Array]:
    """What each tensor's update and memory are, the next state of `recall`, and whether the gradients are finite."""
    shapes = [leaf.shape for leaf in chunked["param"]]
    tensors = len(shapes)
    if not tensors:
        return {name: [] for name in chunked}, recall, jnp.array(True)
    weights = {name: jnp.asarray(value) for name, value in _weights().items()}
    rows: dict[str, jax.Array] = {f"state.{name}": value for name, value in recall.items()}
    rows.update((name, jnp.asarray(value)) for name, value in _facts(shapes).items())
    parts, samples = _parts(shapes, block, False), _parts(shapes, block, True)

    def summed(phase: Callable[[Rows, Rows], dict[str, jax.Array]], parts: Sequence["_Part"]) -> dict[str, jax.Array]:
        bound, names = functools.partial(phase, weights), INPUTS[phase.__name__]
        totals = [part.summed(bound, names, chunked, rows) for part in parts]
        return {name: jnp.concatenate([total[name] for total in totals]) for name in totals[0]}

    moments = summed(_phases.measure, parts)
    rows.update(moments)
    finite = jnp.all(jnp.isfinite(jnp.stack(list(moments.values()))))
    rows.update(summed(_phases.encode, samples))
    for name, value in {"guard.finite": finite, "clock.step": step, **hyper}.items():
        rows[name] = jnp.broadcast_to(jnp.asarray(value).astype(jnp.float32), (tensors,))
    recalled = _phases.recall(weights, {name: rows[name] for name in INPUTS["recall"]})
    rows.update((name, value) for name, value in recalled.items() if name.startswith("context."))
    rows.update(summed(_phases.probe, samples))

    def advance(inputs: Rows) -> dict[str, jax.Array]:
        new = _phases.update(weights, inputs)
        return {**new, "param": new["param"] - inputs["param"]}

    results: dict[str, list[jax.Array]] = {name: [] for name in chunked if name != "grad"}
    for part in parts:
        for name, arrays in part.mapped(advance, INPUTS["update"], chunked, rows).items():
            results[name].extend(arrays)
    results["param"] = [new.astype(old.dtype) for new, old in zip(results["param"], chunked["param"], strict=True)]
    return results, {name: recalled[f"state.{name}"] for name in recall}, finite


class _Part(NamedTuple):
    """Consecutive tensors, packed; a tensor larger than a block is a part of its own and worked on block by block."""

    first: int
    shapes: list[tuple[int, ...]]
    sampled: bool
    block: int

    @property
    def is_blocked(self) -> bool:
        return not self.sampled and math.prod(self.shapes[0]) > self.block

    def gather(self, arrays: Sequence[jax.Array]) -> jax.Array:
        """The chunks of the tensors, as float32."""
        pieces = []
        for array in arrays[self.first : self.first + len(self.shapes)]:
            flat = array.reshape(-1)
            if self.sampled and _chunks(array.shape) > SAMPLE_CHUNKS:
                # The sample never holds the last chunk, the one that may be short.
                whole = flat.size // CHUNK_LENGTH
                flat = flat[: whole * CHUNK_LENGTH].reshape(whole, CHUNK_LENGTH)[_sample(array.shape)]
            else:
                flat = jnp.pad(flat, (0, -flat.size % CHUNK_LENGTH))
            pieces.append(flat.reshape(-1, CHUNK_LENGTH).astype(jnp.float32))
        return jnp.concatenate(pieces)

    def layout(self) -> tuple[np.ndarray, np.ndarray]:
        """The tensor of each chunk, counted from the first, and which places hold coordinates."""
        owners, masks = [], []
        for row, shape in enumerate(self.shapes):
            chunks = _chunks(shape)
            taken = _sample(shape) if self.sampled else np.arange(chunks)
            mask = np.arange(chunks * CHUNK_LENGTH).reshape(chunks, CHUNK_LENGTH)[taken] < math.prod(shape)
            owners.append(np.full(len(taken), row))
            masks.append(mask)
        return np.concatenate(owners), np.concatenate(masks)

    def inputs(self, names: Sequence[str], chunked: Chunked, rows: Rows) -> dict[str, jax.Array]:
        owner, valid = self.layout()
        gathered = {}
        for name in names:
            if name in chunked:
                gathered[name] = self.gather(chunked[name])
            else:
                gathered[name] = jnp.asarray(valid) if name == "valid" else rows[name][self.first + owner]
        return gathered

    def blocks(
        self, phase: Callable[[Rows], Any], names: Sequence[str], chunked: Chunked, rows: Rows
    ) -> tuple[Any, Any]:
        """What the phase gives for the whole blocks of a large tensor, stacked, and for the rest, or None."""
        size = math.prod(self.shapes[0])
        count, rest = divmod(size, self.block)
        flat = {name: chunked[name][self.first].reshape(-1) for name in names if name in chunked}

        def run(part: dict[str, jax.Array], chunks: int) -> Any:
            inputs = {
                name: jnp.pad(value, (0, chunks * CHUNK_LENGTH - value.size))
                .reshape(chunks, CHUNK_LENGTH)
                .astype(jnp.float32)
                for name, value in part.items()
            }
            for name in names:
                if name not in chunked:
                    row = rows[name][self.first]
                    inputs[name] = jnp.broadcast_to(row, (chunks, *row.shape))
            return phase(inputs)

        def run_block(start: jax.Array) -> Any:
            part = {
                name: jax.lax.dynamic_slice_in_dim(value, start * self.block, self.block)
                for name, value in flat.items()
            }
            return run(part, self.block // CHUNK_LENGTH)

        whole = jax.lax.map(run_block, jnp.arange(count))
        tail = {name: value[count * self.block :] for name, value in flat.items()}
        return whole, run(tail, -(-rest // CHUNK_LENGTH)) if rest else None

    def summed(
        self, phase: Callable[[Rows], dict[str, jax.Array]], names: Sequence[str], chunked: Chunked, rows: Rows
    ) -> dict[str, jax.Array]:
        """The phase's rows, summed for each tensor."""
        if self.is_blocked:

            def total(inputs: Rows) -> dict[str, jax.Array]:
                return {name: jnp.sum(value, axis=0, keepdims=True) for name, value in phase(inputs).items()}

            whole, rest = self.blocks(total, names, chunked, rows)
            return {name: jnp.sum(value, axis=0) + (0 if rest is None else rest[name]) for name, value in whole.items()}
        owner, _ = self.layout()
        return {
            name: jax.ops.segment_sum(value, owner, len(self.shapes), indices_are_sorted=True)
            for name, value in phase(self.inputs(names, chunked, rows)).items()
        }

    def mapped(
        self, phase: Callable[[Rows], dict[str, jax.Array]], names: Sequence[str], chunked: Chunked, rows: Rows
    ) -> dict[str, list[jax.Array]]:
        """The phase's chunks, as tensors of their own shapes."""
        if self.is_blocked:
            shape = self.shapes[0]
            whole, rest = self.blocks(phase, names, chunked, rows)
            flat = {name: [value.reshape(-1)] for name, value in whole.items()}
            if rest is not None:
                for name, value in rest.items():
                    flat[name].append(value.reshape(-1)[: math.prod(shape) % self.block])
            return {name: [jnp.concatenate(pieces).reshape(shape)] for name, pieces in flat.items()}
        ends = np.cumsum([_chunks(shape) for shape in self.shapes])[:-1]
        return {
            name: [
                piece.reshape(-1)[: math.prod(shape)].reshape(shape)
                for piece, shape in zip(jnp.split(value, ends), self.shapes, strict=True)
            ]
            for name, value in phase(self.inputs(names, chunked, rows)).items()
        }


def _parts(shapes: Sequence[tuple[int, ...]], block: int, sampled: bool) -> list[_Part]:
    """Consecutive tensors in parts of at most `block` coordinates, or of one tensor."""
    parts, start, held = [], 0, 0
    for place, shape in enumerate(shapes):
        chunks = min(_chunks(shape), SAMPLE_CHUNKS) if sampled else _chunks(shape)
        if place > start and held + chunks * CHUNK_LENGTH > block:
            parts.append(_Part(start, list(shapes[start:place]), sampled, block))
            start, held = place, 0
        held += chunks * CHUNK_LENGTH
    return [*parts, _Part(start, list(shapes[start:]), sampled, block)]


def _chunks(shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) // CHUNK_LENGTH)


def _sample(shape: tuple[int, ...]) -> np.ndarray:
    chunks = _chunks(shape)
    taken = min(chunks, SAMPLE_CHUNKS)
    return np.arange(taken) * chunks // taken


def _facts(shapes: Sequence[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """What the cell is told of each tensor's shape."""
    matrix = [len(shape) >= 2 for shape in shapes]
    aspect = [
        max(shape) * max(shape) / math.prod(shape) if is_matrix else 1.0
        for shape, is_matrix in zip(shapes, matrix, strict=True)
    ]
    return {
        "facts.coordinates": np.array([math.prod(shape) for shape in shapes], np.float32),
        "facts.matrix": np.array(matrix, np.float32),
        "facts.aspect": np.array(aspect, np.float32),
    }
