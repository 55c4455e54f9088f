"""One tensor in a function of JAX: its chunks, and the sample of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program import CompiledCell
from ...step import Phase
from ..one_tensor import AbstractTensor, COUNTERS, is_per_chunk, memory, network, NUMBERS, state
from ._run import Inputs, run


class Tensor(AbstractTensor[jax.Array]):
    """The step of one tensor, all chunks at once.

    **Arguments:**

    - `compiled`: the cell.
    - `inputs`: the function's inputs, by name.
    """

    def __init__(self, compiled: CompiledCell, inputs: Inputs):
        self.compiled = compiled
        self.inputs = inputs
        self.length = compiled.chunk_length
        self.count = inputs["grad"].shape[0]
        self.chunk_count = chunk_count(compiled, self.count)
        names = [name for name in ("param", "grad", *memory(compiled)) if name in inputs]
        self.chunks = {name: self._chunked(name, inputs[name]) for name in names}
        places = jnp.arange(self.chunk_count * self.length)
        self.chunks["valid"] = (places < self.count).reshape(self.chunk_count, self.length)
        picks, self.in_sample = _sample(jnp.asarray(self.chunk_count), compiled.sample_chunks)
        self.sample = {name: value[picks] for name, value in self.chunks.items()}
        self.sample["valid"] &= self.in_sample[:, None]
        self.rows = {name: inputs[name][None] for name in (*state(compiled), *network(compiled)) if name in inputs}
        self.rows.update(
            (row, inputs[name].astype(np.float32)[None]) for name, row in NUMBERS.items() if name in inputs
        )
        self.rows["shape.coordinates"] = jnp.asarray(self.count, np.float32)[None]

    def of_tensor(self, phase: Phase) -> dict[str, jax.Array]:
        return run(self.compiled, phase.name, self.rows)

    def total(self, phase: Phase) -> dict[str, jax.Array]:
        if phase.rows == "chunks":
            return {
                name: jnp.sum(value, axis=0, keepdims=True) for name, value in self._run(phase, self.chunks).items()
            }
        # Unused places of the sample may give anything, even NaN.
        return {
            name: jnp.sum(value, axis=0, keepdims=True, where=self.in_sample.reshape(-1, *(1,) * (value.ndim - 1)))
            for name, value in self._run(phase, self.sample).items()
        }

    def advance(self, phase: Phase) -> dict[str, jax.Array]:
        results = self._run(phase, self.chunks)
        for name, value in results.items():
            if not is_per_chunk(self.compiled, name):
                value = value.reshape(-1, *value.shape[2:])[: self.count]
            results[name] = value.astype(dtype(self.compiled, name))
        return results

    def all_finite(self, values: Sequence[jax.Array]) -> jax.Array:
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in values]))
        return finite.astype(np.float32)[None]

    def without_row(self, name: str, row: jax.Array) -> jax.Array:
        return row[0]

    def counters(self, finite: jax.Array) -> dict[str, jax.Array]:
        increment = finite[0].astype(np.int32)
        return {
            "next.step": self.inputs["step"] + increment,
            "next.skipped": self.inputs["skipped"] + 1 - increment,
            "finite": finite[0] > 0,
        }

    def _chunked(self, name: str, array: jax.Array) -> jax.Array:
        """An array in rows of chunks, in float32."""
        array = array.astype(np.float32)
        if is_per_chunk(self.compiled, name):
            return array
        padding = [(0, self.chunk_count * self.length - self.count), *((0, 0) for _ in array.shape[1:])]
        return jnp.pad(array, padding).reshape(self.chunk_count, self.length, *array.shape[1:])

    def _run(self, phase: Phase, chunks: Inputs) -> dict[str, jax.Array]:
        """Runs a phase over chunks, with the tensor's row repeated for each chunk."""
        count = chunks["grad"].shape[0]
        names = [value.name for value in self.compiled.programs[phase.name].inputs]
        repeated = {
            name: jnp.broadcast_to(self.rows[name], (count, *self.rows[name].shape[1:]))
            for name in names
            if name in self.rows
        }
        return run(self.compiled, phase.name, {**chunks, **repeated})


def dtype(compiled: CompiledCell, name: str) -> Any:
    """Dtype of an input or output of the step."""
    if name in COUNTERS:
        return np.int32
    slots = {f"memory.{slot.name}": slot for slot in compiled.memory_slots}
    return jnp.dtype(slots[name].dtype) if name in slots else np.float32


def chunk_count(compiled: CompiledCell, coordinates: Any) -> Any:
    """Chunks of a tensor, whose size may be an expression."""
    return (coordinates + compiled.chunk_length - 1) // compiled.chunk_length


def _sample(chunks: jax.Array, sample: int) -> tuple[jax.Array, jax.Array]:
    """Indices of `sample` evenly spaced chunks, and which of them are used if there are fewer chunks."""
    place = jnp.arange(sample, dtype=np.int32)
    # This equals place · chunks // sample, whose product could overflow an int32.
    spaced = place * (chunks // sample) + place * (chunks % sample) // sample
    return jnp.where(chunks >= sample, spaced, jnp.minimum(place, chunks - 1)), place < chunks
