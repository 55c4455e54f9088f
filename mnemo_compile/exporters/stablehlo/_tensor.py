"""One tensor in a function of JAX: its chunks, the sample of them, and its tiles."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...step import Phase
from ..one_tensor import AbstractTensor, COUNTERS, NUMBERS, Signature
from ._places import chunks_of, tiles_of
from ._run import Inputs, run


class Tensor(AbstractTensor[jax.Array]):
    """The step of one tensor, all chunks or tiles at once.

    **Arguments:**

    - `signature`: of the tensor's kind.
    - `inputs`: the function's inputs, by name.
    """

    def __init__(self, signature: Signature, inputs: Inputs):
        self.signature = signature
        self.compiled = signature.compiled
        self.inputs = inputs
        self.sizes = inputs["grad"].shape
        self.arrays = [name for name in ("param", "grad", *signature.memory) if name in inputs]
        self.layout = chunks_of(self.sizes, self.compiled.chunk_length)
        self.chunks = {name: self._chunked(name) for name in self.arrays}
        self.chunks["valid"] = self.layout.places.inside
        self.chunks.update(
            (name, jnp.zeros((self.layout.exists.shape[0], *shape), np.float32))
            for name, shape in signature.missing_memory.items()
        )
        picks, self.in_sample = _sample(self.layout.number, self.compiled.sample_chunks)
        self.sample = {name: value[picks] for name, value in self.chunks.items()}
        self.sample["valid"] &= self.in_sample[:, None]
        self.rows = {name: inputs[name][None] for name in (*signature.state, *signature.network) if name in inputs}
        self.rows.update(
            (row, inputs[name].astype(np.float32)[None]) for name, row in NUMBERS.items() if name in inputs
        )
        batch, rows, columns = self.sizes
        numbers = {"coordinates": batch * rows * columns, "area": rows * columns, "run": self.layout.run}
        self.rows.update(
            (f"shape.{name}", jnp.asarray(value).astype(np.float32)[None]) for name, value in numbers.items()
        )

    def of_tensor(self, phase: Phase) -> dict[str, jax.Array]:
        return run(self.compiled, phase.name, self.rows)

    def total(self, phase: Phase) -> dict[str, jax.Array]:
        is_all = phase.rows == "chunks"
        chunks, counts = (self.chunks, self.layout.exists) if is_all else (self.sample, self.in_sample)
        # Rows that are no chunk may give anything, even NaN.
        return {
            name: jnp.sum(value, axis=0, keepdims=True, where=counts.reshape(-1, *(1,) * (value.ndim - 1)))
            for name, value in self._run(phase, chunks).items()
        }

    def advance(self, phase: Phase) -> dict[str, jax.Array]:
        return {name: self._whole(name, value) for name, value in self._run(phase, self.chunks).items()}

    def advance_tiles(self, phases: Sequence[Phase]) -> dict[str, jax.Array]:
        tiles = tiles_of(self.sizes, self.compiled.tile)
        arrays = {name: tiles.places.cut(self.inputs[name].astype(np.float32)) for name in self.arrays}
        arrays["tile.side"] = tiles.side.astype(np.float32)
        for phase in phases:
            arrays.update(self._run(phase, arrays))
        return {
            name: tiles.places.join(arrays[name]).astype(dtype(self.signature, name))
            for name in ("param", *self.signature.memory)
        }

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

    def _chunked(self, name: str) -> jax.Array:
        """An array in rows of chunks, in float32."""
        array = self.inputs[name].astype(np.float32)
        return array if self.signature.is_per_chunk(name) else self.layout.places.cut(array)

    def _whole(self, name: str, chunks: jax.Array) -> jax.Array:
        """The array of the step that has these rows of chunks."""
        if self.signature.is_per_chunk(name):
            exists = self.layout.exists.reshape(-1, *(1,) * (chunks.ndim - 1))
            whole = jnp.where(exists, chunks, 0)
        else:
            whole = self.layout.places.join(chunks)
        return whole.astype(dtype(self.signature, name))

    def _run(self, phase: Phase, parts: Inputs) -> dict[str, jax.Array]:
        """Runs a phase over chunks or tiles, with the tensor's row repeated for each."""
        count = parts["grad"].shape[0]
        names = [value.name for value in self.compiled.programs[phase.name].inputs]
        repeated = {
            name: jnp.broadcast_to(self.rows[name], (count, *self.rows[name].shape[1:]))
            for name in names
            if name in self.rows
        }
        return run(self.compiled, phase.name, {**parts, **repeated})


def dtype(signature: Signature, name: str) -> Any:
    """Dtype of an input or output of the step."""
    if name in COUNTERS:
        return np.int32
    slots = {f"memory.{slot.name}": slot for slot in signature.slots}
    return jnp.dtype(slots[name].dtype) if name in slots else np.float32


def _sample(chunks: jax.Array, sample: int) -> tuple[jax.Array, jax.Array]:
    """Indices of `sample` evenly spaced chunks, and which of them are used if there are fewer chunks."""
    place = jnp.arange(sample, dtype=np.int32)
    # This equals place · chunks // sample, whose product could overflow an int32.
    spaced = place * (chunks // sample) + place * (chunks % sample) // sample
    return jnp.where(chunks >= sample, spaced, jnp.minimum(place, chunks - 1)), place < chunks
