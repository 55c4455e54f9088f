"""Where a rung's training starts, and what the rung computes there."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...tasks import Batch, Params, Split
from .._fingerprint import figures, Fingerprint, rounded, STEPS
from .._training import batch_key
from ._rungs import Rung


class Start(NamedTuple):
    """A rung as data for a compiled program, and the rest of it."""

    arrays: Any
    """Arrays of the family: its data."""
    family: Any
    """The family without them."""
    instance: Any
    key: PRNGKeyArray
    """Of the batches."""

    def params(self) -> list[Float[Array, "..."]]:
        """The parameters at a fresh start; NumPy draws them, since there is nothing to compile."""
        random = np.random.default_rng(np.asarray(jax.random.key_data(self.key)))
        return [
            jnp.asarray(tensor.mean + tensor.deviation * random.standard_normal(tensor.shape, np.float32))
            for tensor in self.family.tensors
        ]


def start(rung: Rung) -> Start:
    """What the rung's seed draws."""
    family = rung.task.build()
    arrays, rest = eqx.partition(family, eqx.is_array)
    instance = jax.jit(lambda key: family.draw(key))(jax.random.fold_in(jax.random.key(rung.seed), 1))
    return Start(arrays, rest, instance, batch_key(rung.seed))


def fingerprint(rung: Rung) -> Fingerprint:
    """The rung's start, its first batches, and the losses of the start on the first of each split."""
    return _fingerprint(rung.model_dump_json())


@functools.cache
def _fingerprint(config: str) -> Fingerprint:
    at = start(Rung.model_validate_json(config))
    params = at.params()

    def compute(params: Params, arrays: Any, instance: Any, key: PRNGKeyArray) -> tuple[list[Batch], list[Array]]:
        family = eqx.combine(arrays, at.family)
        keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(np.arange(STEPS))

        def batches(split: Split) -> Batch:
            return jax.vmap(lambda key: family.batch(instance, key, split))(keys)

        data = [batches("train"), batches("validation")]
        first = jax.tree.map(lambda *rows: jnp.stack([row[0] for row in rows]), *data)
        return data, jax.lax.map(lambda batch: family.loss(params, batch), first)

    data, losses = jax.jit(compute)(params, at.arrays, at.instance, at.key)
    return Fingerprint(
        shapes=[list(param.shape) for param in params],
        start=figures(params),
        data=figures(jax.tree.leaves(data)),
        losses=[rounded(loss) for loss in losses],
        accuracy=None,
    )
