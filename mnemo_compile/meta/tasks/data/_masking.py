"""Masked symbols: some places of a text are hidden, and the network predicts them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from ._interface import Batch


def mask(text: Int[Array, "batch place"], key: PRNGKeyArray, fraction: float, symbol: int) -> Batch:
    """A batch that shows `symbol` at a fraction of the places (Devlin et al. 2019, section 3.1).

    Only hidden places count in the loss.
    """
    is_hidden = jax.random.uniform(key, text.shape) < fraction
    return Batch(jnp.where(is_hidden, symbol, text), text, is_hidden.astype(jnp.float32) / fraction)
