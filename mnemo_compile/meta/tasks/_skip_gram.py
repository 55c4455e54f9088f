"""Embeddings of words by the words around them."""

import collections
import functools
import re
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, SourceConfig, Split, split_key, SPLITS
from .networks import Params, Tensor, Width

WINDOW, NEGATIVES, TABLE = 5, 5, 100_000
"""How far a word of the context is away at most; words drawn at random beside each that is one; the table's size."""


class SkipGramConfig(AbstractFamilyConfig):
    """Skip-gram with negative sampling (Mikolov et al. 2013, arXiv 1310.4546), equation 4."""

    kind: Literal["skip-gram"]
    data: SourceConfig
    words: Count = 512
    """How many words have an embedding: the most frequent ones of the training split. Others are left out."""
    width: Width = 32
    batch: Count = 128

    def build(self) -> "SkipGram":
        return SkipGram(self)


class SkipGram(AbstractFamily):
    """Every task has the same text."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: SkipGramConfig = eqx.field(static=True)
    text: dict[str, Int[Array, " words"]]
    """The words of each split, by their rank."""
    table: Int[Array, " table"]
    """What words are drawn from at random: each is as frequent as its number in the text to the power of ¾."""

    def __init__(self, config: SkipGramConfig):
        c = config
        text, counts = _words(config.data.kind, config.words)
        self.text = {split: jnp.asarray(words) for split, words in text.items()}
        share = np.cumsum(counts**0.75) / np.sum(counts**0.75)
        self.table = jnp.asarray(np.searchsorted(share, (np.arange(TABLE) + 0.5) / TABLE), jnp.int32)
        # The paper's program starts with zeros in one of the two and small numbers in the other.
        self.tensors = (
            Tensor((c.words, c.width), 0.3 / c.width**0.5, name="embedding.weight"),
            Tensor((c.words, c.width), name="context_embedding.weight"),
        )
        self.name = f"skip-gram-{c.words}x{c.width} {c.data.kind} b{c.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return ()

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        size, text = self.config.batch, self.text[split]
        keys = jax.random.split(split_key(key, split), 4)
        place = jax.random.randint(keys[0], (size,), WINDOW, text.shape[0] - WINDOW)
        away = jax.random.randint(keys[1], (size,), 1, WINDOW + 1)
        side = jnp.where(jax.random.bernoulli(keys[2], shape=(size,)), 1, -1)
        drawn = self.table[jax.random.randint(keys[3], (size, NEGATIVES), 0, TABLE)]
        return Batch(text[place], jnp.concatenate([text[place + side * away][:, None], drawn], axis=1))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        words, contexts = params
        scores = jnp.einsum("bw,bcw->bc", words[batch.inputs], contexts[batch.targets])
        sign = jnp.array([1.0, *[-1.0] * NEGATIVES])
        return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(sign * scores), axis=1))

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)


@functools.cache
def _words(kind: Literal["source", "prose"], count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The words of each split, by their rank, and how often each is in the training split."""
    characters = np.array(["\n", *map(chr, range(32, 127))])
    symbols = SourceConfig(kind=kind).build().text
    texts = {split: re.findall(r"[a-z]+", "".join(characters[np.asarray(symbols[split])]).lower()) for split in SPLITS}
    frequent = collections.Counter(texts["train"]).most_common(count)
    rank = {word: place for place, (word, _) in enumerate(frequent)}
    ranks = {
        split: np.array([rank[word] for word in words if word in rank], np.int32) for split, words in texts.items()
    }
    return ranks, np.array([times for _, times in frequent])
