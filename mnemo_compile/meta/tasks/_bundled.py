"""Real data that is there without a download: scikit-learn's sets, its two photographs, and Python's own sources."""

import functools
import pathlib
import sysconfig
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._data import AbstractData, AbstractDataConfig, Batch, Count, Part, Reads, Shape, Tells

_SHARES = {"train": 0.5, "judge": 0.22, "held_out": 0.28}


@functools.cache
def _table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, shuffled once; inputs of mean 0 and variance 1 a column, images a set."""
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")(return_X_y=True)
    inputs, targets = (np.asarray(array) for array in loaded)
    order = np.random.default_rng(0).permutation(len(inputs))
    inputs, targets = inputs[order].astype(np.float32), targets[order]
    axis = None if name == "digits" else 0
    inputs = (inputs - inputs.mean(axis=axis)) / (inputs.std(axis=axis) + 1e-6)
    if targets.dtype.kind == "f":
        scaled = (targets - targets.mean(axis=0)) / targets.std(axis=0)
        return inputs, scaled.reshape(len(inputs), -1).astype(np.float32)
    return inputs, targets.astype(np.int32)


class BundledConfig(AbstractDataConfig):
    """A set of scikit-learn: digits (8×8 images), wine, breast_cancer, iris (classes), diabetes (a number)."""

    kind: Literal["digits", "wine", "breast_cancer", "iris", "diabetes"]
    permuted_inputs: bool = False
    """Whether each task sees the inputs in an order of its own."""

    @property
    def reads(self) -> Reads:
        return "images" if self.kind == "digits" else "numbers"

    @property
    def tells(self) -> Tells:
        return "numbers" if self.kind == "diabetes" else "classes"

    def build(self) -> "Bundled":
        return Bundled(self)


class Bundled(AbstractData):
    """Rows of a table. Each task has its own order of classes."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    rows: dict[str, tuple[Float[Array, "rows ..."], Array]]
    permuted: bool = eqx.field(static=True)

    def __init__(self, config: BundledConfig):
        inputs, targets = _table(config.kind)
        shape = (8, 8) if config.kind == "digits" else inputs.shape[1:]
        cuts = np.cumsum([int(share * len(inputs)) for share in _SHARES.values()])[:-1]
        parts = zip(_SHARES, np.split(inputs.reshape(-1, *shape), cuts), np.split(targets, cuts), strict=True)
        self.rows = {name: (jnp.asarray(x), jnp.asarray(y)) for name, x, y in parts}
        self.name = config.kind + ("-permuted" if config.permuted_inputs else "")
        self.inputs = shape
        self.kind = config.tells
        self.outputs = int(targets.max()) + 1 if self.kind == "classes" else targets.shape[1]
        self.permuted = config.permuted_inputs

    def draw(self, key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key)
        size = int(np.prod(self.inputs))
        order = jax.random.permutation(keys[1], size) if self.permuted else jnp.arange(size)
        return jax.random.permutation(keys[0], self.outputs), order

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        labels, order = instance
        inputs, targets = self.rows[part]
        place = jax.random.randint(key, (size,), 0, inputs.shape[0])
        chosen = inputs[place]
        if self.permuted:
            chosen = chosen.reshape(size, -1)[:, order].reshape(chosen.shape)
        return Batch(chosen, labels[targets[place]] if self.kind == "classes" else targets[place])


# Python's own sources, as text.

SYMBOLS = 96
"""Printable ASCII and the end of a line; anything else counts as a question mark."""
FILES = 80
"""Modules of the standard library that are read, the first by name."""


@functools.cache
def _source() -> dict[str, np.ndarray]:
    """Symbols of each part; whole files belong to one part."""
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    files = [path for path in files if path.stat().st_size > 8192][:FILES]
    table = np.full(256, ord("?") - 31, np.int32)
    table[32:127] = np.arange(1, 96)
    table[ord("\n")] = 0
    texts = [table[np.frombuffer(path.read_bytes(), np.uint8)] for path in files]
    order = np.random.default_rng(0).permutation(len(texts))
    cuts = [len(texts) * 3 // 4, len(texts) * 7 // 8]
    parts = zip(("train", "judge", "held_out"), np.split(order, cuts), strict=True)
    return {part: np.concatenate([texts[i] for i in chosen]) for part, chosen in parts}


class SourceConfig(AbstractDataConfig):
    """Characters of the standard library of the Python that runs this."""

    kind: Literal["source"] = "source"
    places: Count = 32
    masked: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Share of places whose symbol is hidden and to be told; 0 to tell the next one."""

    @property
    def reads(self) -> Reads:
        return "symbols"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Source":
        return Source(self)


class Source(AbstractData):
    """The same text for every task."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: SourceConfig = eqx.field(static=True)
    text: dict[str, Int[Array, " symbols"]]

    def __init__(self, config: SourceConfig):
        self.name = "source-masked" if config.masked else "source"
        self.inputs = (config.places, SYMBOLS + 1)
        self.outputs = SYMBOLS
        self.kind = config.tells
        self.config = config
        self.text = {part: jnp.asarray(text) for part, text in _source().items()}

    def draw(self, key: PRNGKeyArray) -> Any:
        return ()

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        text, places = self.text[part], self.config.places
        keys = jax.random.split(key)
        start = jax.random.randint(keys[0], (size, 1), 0, text.shape[0] - places)
        read = text[start + jnp.arange(places + 1)]
        if not self.config.masked:
            return Batch(read[:, :-1], read[:, 1:])
        return hide(read[:, 1:], keys[1], self.config.masked, SYMBOLS)


def hide(text: Int[Array, "batch place"], key: PRNGKeyArray, share: float, symbol: int) -> Batch:
    """A batch in which a share of the places shows `symbol` and is to be told (Devlin et al. 2019, section 3.1)."""
    is_hidden = jax.random.uniform(key, text.shape) < share
    return Batch(jnp.where(is_hidden, symbol, text), text, is_hidden.astype(jnp.float32) / share)


# Photographs.

PATCH, HOLE = 8, 2


@functools.cache
def _photographs() -> dict[str, np.ndarray]:
    """Left, middle and right of scikit-learn's photographs, with mean 0 and variance 1."""
    from sklearn import datasets

    images = np.stack(datasets.load_sample_images().images).astype(np.float32)
    images = (images - images.mean()) / images.std()
    parts = np.split(images, [images.shape[2] * 3 // 4, images.shape[2] * 7 // 8], axis=2)
    return dict(zip(("train", "judge", "held_out"), parts, strict=True))


class PatchesConfig(AbstractDataConfig):
    """8×8 pixels of a photograph, in colour; the middle is hidden and to be told."""

    kind: Literal["patches"] = "patches"
    hides: bool = True
    """Whether the middle is hidden. A network that tells the whole patch sees all of it."""

    @property
    def reads(self) -> Reads:
        return "images"

    @property
    def tells(self) -> Tells:
        return "numbers"

    def build(self) -> "Patches":
        return Patches(self)


class Patches(AbstractData):
    """Each task sees the colours in an order of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    hides: bool = eqx.field(static=True)
    photographs: dict[str, Float[Array, "photograph rows columns 3"]]

    def __init__(self, config: PatchesConfig):
        self.name = "patches"
        self.inputs = (PATCH, PATCH, 3)
        self.outputs = HOLE * HOLE * 3
        self.kind = config.tells
        self.hides = config.hides
        self.photographs = {part: jnp.asarray(images) for part, images in _photographs().items()}

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, 3)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        images = self.photographs[part]
        count, rows, columns, _ = images.shape
        keys = jax.random.split(key, 3)
        which = jax.random.randint(keys[0], (size, 1, 1), 0, count)
        row = jax.random.randint(keys[1], (size, 1, 1), 0, rows - PATCH + 1) + jnp.arange(PATCH)[:, None]
        column = jax.random.randint(keys[2], (size, 1, 1), 0, columns - PATCH + 1) + jnp.arange(PATCH)
        patch = images[which, row, column][..., instance]
        middle = slice((PATCH - HOLE) // 2, (PATCH + HOLE) // 2)
        target = patch[:, middle, middle].reshape(size, -1)
        return Batch(patch.at[:, middle, middle].set(0) if self.hides else patch, target)
