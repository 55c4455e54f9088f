"""Bytes of Python's sources, in one stream per split."""

import functools
import pathlib
import sysconfig
from collections.abc import Iterator
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

from ._interface import AbstractData, AbstractDataConfig, Batch, Count, InputKind, Shape, Split, SPLITS, TargetKind

SYMBOLS = 256
FRACTIONS: dict[Split, float] = {"train": 0.9, "meta": 0.05, "validation": 0.05}
"""Fraction of the bytes in each split."""
OMITTED = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages", "__pycache__"}
"""Folders that not every interpreter has, or that hold tables."""
MOST_BYTES = 2**25
"""How much of the installed packages is read."""


@functools.cache
def _read(packages: bool) -> dict[Split, np.ndarray]:
    """The bytes of each split. Every file but those at the two cuts belongs to one split."""
    files = sorted(_packages() if packages else _library())
    order = np.random.default_rng(0).permutation(len(files))
    text = np.frombuffer(b"".join(files[place] for place in order), np.uint8)[:MOST_BYTES]
    cuts = (len(text) * np.cumsum(list(FRACTIONS.values()))[:-1]).astype(int)
    return dict(zip(SPLITS, np.split(text, cuts), strict=True))


def _library() -> Iterator[bytes]:
    """Modules in the folders of the standard library. The data set `source` reads those above them."""
    return _sources(pathlib.Path(sysconfig.get_path("stdlib")))


def _packages() -> Iterator[bytes]:
    return _sources(pathlib.Path(sysconfig.get_path("purelib")))


def _sources(folder: pathlib.Path) -> Iterator[bytes]:
    for path in folder.glob("*/**/*.py"):
        if not OMITTED.intersection(path.relative_to(folder).parts):
            yield path.read_bytes()


class BytesConfig(AbstractDataConfig):
    """Bytes of the sources of the running Python. Another version of it, or of the packages, gives other text."""

    kind: Literal["bytes"] = "bytes"
    places: Count = 64
    packages: bool = False
    """Whether the text is that of the installed packages, which is longer, and not the standard library's."""

    @property
    def input_kind(self) -> InputKind:
        return "symbols"

    @property
    def target_kind(self) -> TargetKind:
        return "classes"

    def build(self) -> "Bytes":
        return Bytes(self)


class Bytes(AbstractData):
    """The next byte at each place. Every task has the same text."""

    name: str = eqx.field(static=True)
    input_shape: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    target_kind: TargetKind = eqx.field(static=True)
    places: int = eqx.field(static=True)
    text: dict[str, UInt8[Array, " bytes"]]
    """The bytes of each split."""

    def __init__(self, config: BytesConfig):
        self.name = "bytes-packages" if config.packages else "bytes"
        self.input_shape = (config.places, SYMBOLS)
        self.outputs = SYMBOLS
        self.target_kind = config.target_kind
        self.places = config.places
        self.text = {split: jnp.asarray(text) for split, text in _read(config.packages).items()}

    def draw(self, key: PRNGKeyArray) -> Any:
        return ()

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split, size: int) -> Batch:
        text = self.text[split]
        start = jax.random.randint(key, (size, 1), 0, text.shape[0] - self.places)
        excerpts = text[start + jnp.arange(self.places + 1)].astype(jnp.int32)
        return Batch(excerpts[:, :-1], excerpts[:, 1:])
