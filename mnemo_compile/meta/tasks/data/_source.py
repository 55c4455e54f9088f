"""The sources and the documentation of Python, as text."""

import functools
import pathlib
import sysconfig
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jaxtyping import Array, Int, PRNGKeyArray

from ._interface import AbstractData, AbstractDataConfig, Batch, Count, InputKind, Shape, Split, SPLITS, TargetKind
from ._masking import mask

SYMBOLS = 96
"""Printable ASCII and the end of a line. Any other byte counts as a question mark."""
FILES = 80
"""How many modules of the standard library are read, in the order of their names."""


def _modules() -> list[bytes]:
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [path.read_bytes() for path in [path for path in files if path.stat().st_size > 8192][:FILES]]


def _topics() -> list[bytes]:
    """The chapters of the language reference that `help` shows."""
    from pydoc_data import topics

    return [text.encode() for _, text in sorted(topics.topics.items())]


@functools.cache
def _read(kind: Literal["source", "prose"]) -> dict[Split, np.ndarray]:
    """The symbols of each split. Every file and every chapter belongs to one split."""
    table = np.full(256, ord("?") - 31, np.int32)
    table[32:127] = np.arange(1, 96)
    table[ord("\n")] = 0
    texts = [table[np.frombuffer(text, np.uint8)] for text in (_modules() if kind == "source" else _topics())]
    order = np.random.default_rng(0).permutation(len(texts))
    cuts = [len(texts) * 3 // 4, len(texts) * 7 // 8]
    splits = zip(SPLITS, np.split(order, cuts), strict=True)
    return {split: np.concatenate([texts[i] for i in chosen]) for split, chosen in splits}


class SourceConfig(AbstractDataConfig):
    """Characters of the running Python's standard library, or of its documentation.

    Another version of Python gives other text.
    """

    kind: Literal["source", "prose"] = "source"
    places: Count = 32
    masked: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Fraction of places whose symbol is hidden and predicted; 0 to predict the next symbol."""

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Source":
        return Source(self)


class Source(AbstractData):
    """Every task has the same text."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    config: SourceConfig = eqx.field(static=True)
    text: dict[str, Int[Array, " symbols"]]
    """The symbols of each split."""

    def __init__(self, config: SourceConfig):
        self.name = f"{config.kind}-masked" if config.masked else config.kind
        # One symbol more stands for a hidden one.
        self.input_shape = (config.places, SYMBOLS + 1)
        self.outputs = SYMBOLS
        self.target_kind = config.target_kind
        self.config = config
        self.text = {split: jnp.asarray(text) for split, text in _read(config.kind).items()}

    def draw(self, key: PRNGKeyArray) -> Any:
        return ()

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        text, places = self.text[split], self.config.places
        keys = jax.random.split(key)
        start = jax.random.randint(keys[0], (size, 1), 0, text.shape[0] - places)
        excerpts = text[start + jnp.arange(places + 1)]
        if not self.config.masked:
            return Batch(excerpts[:, :-1], excerpts[:, 1:])
        return mask(excerpts[:, 1:], keys[1], self.config.masked, SYMBOLS)
