"""What networks are trained on: sets that come with an installed library, and procedures that draw without end."""

import abc
import functools
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jaxtyping import Array, Float, Int, PRNGKeyArray

Part = Literal["train", "judge", "held_out"]
"""What a task trains on, what its optimizer is judged by besides, and what neither sees."""
PARTS: tuple[Part, ...] = ("train", "judge", "held_out")
Shape = tuple[int, ...]
Count = Annotated[int, pydantic.Field(ge=1, le=4096)]


class Batch(NamedTuple):
    """Some examples."""

    inputs: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    targets: Float[Array, "batch ..."] | Int[Array, "batch ..."]
    """Classes or symbols, as integers, or numbers."""
    weight: Float[Array, "batch ..."] | None = None
    """How much each target counts, where not all count alike."""


class AbstractData(eqx.Module):
    """A source of batches. What differs from task to task is an instance of it: arrays, drawn once a task."""

    name: eqx.AbstractVar[str]
    inputs: eqx.AbstractVar[Shape]
    """Of one example; of symbols, places and how many symbols there are."""
    outputs: eqx.AbstractVar[int]
    """Classes, symbols or numbers to predict."""
    kind: eqx.AbstractVar[Literal["classes", "numbers"]]
    """Of the targets."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Any:
        """What one task has of its own."""

    @abc.abstractmethod
    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        """Examples of a part, drawn with replacement."""


class AbstractDataConfig(pydantic.BaseModel, abc.ABC):
    """Which data, and what can be chosen of it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @abc.abstractmethod
    def build(self) -> AbstractData:
        """The data, read or made."""


# Sets that come with scikit-learn.

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

    def build(self) -> "Bundled":
        return Bundled(self)


class Bundled(AbstractData):
    """Rows of a table. Each task has its own order of classes."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Literal["classes", "numbers"] = eqx.field(static=True)
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
        self.kind = "classes" if targets.dtype.kind == "i" else "numbers"
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


# Procedures. `judge` and `held_out` draw from the same distribution as `train`, with other keys.


class ClustersConfig(AbstractDataConfig):
    """Classes that are mixtures of normal distributions, bent by a random map."""

    kind: Literal["clusters"] = "clusters"
    dimension: Count = 16
    classes: Annotated[int, pydantic.Field(ge=2, le=256)] = 8
    modes: Annotated[int, pydantic.Field(ge=1, le=16)] = 3
    """Normal distributions a class."""
    spread: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.7
    """Standard deviation of each, where the centres have 1."""

    def build(self) -> "Clusters":
        return Clusters(self)


class Clusters(AbstractData):
    """Each task has centres and a map of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Literal["classes", "numbers"] = eqx.field(static=True)
    config: ClustersConfig = eqx.field(static=True)

    def __init__(self, config: ClustersConfig):
        self.name = f"clusters-{config.dimension}"
        self.inputs = (config.dimension,)
        self.outputs = config.classes
        self.kind = "classes"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key)
        centres = jax.random.normal(keys[0], (c.classes * c.modes, c.dimension))
        return centres, jax.random.normal(keys[1], (c.dimension, c.dimension)) * c.dimension**-0.5

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        centres, turn = instance
        keys = jax.random.split(jax.random.fold_in(key, PARTS.index(part)))
        mode = jax.random.randint(keys[0], (size,), 0, centres.shape[0])
        x = centres[mode] + self.config.spread * jax.random.normal(keys[1], (size, centres.shape[1]))
        return Batch(x + jnp.tanh(2 * x @ turn), mode % self.config.classes)


class TeacherConfig(AbstractDataConfig):
    """The outputs of a random network, with noise."""

    kind: Literal["teacher"] = "teacher"
    dimension: Count = 16
    outputs: Count = 4
    hidden: Count = 32
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.1
    correlation: Annotated[float, pydantic.Field(ge=0, le=3)] = 1.0
    """Inputs have standard deviations of i to the minus this, in directions of their own."""

    def build(self) -> "Teacher":
        return Teacher(self)


class Teacher(AbstractData):
    """Each task has a network and directions of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Literal["classes", "numbers"] = eqx.field(static=True)
    config: TeacherConfig = eqx.field(static=True)

    def __init__(self, config: TeacherConfig):
        self.name = f"teacher-{config.dimension}"
        self.inputs = (config.dimension,)
        self.outputs = config.outputs
        self.kind = "numbers"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 3)
        turn = jnp.linalg.qr(jax.random.normal(keys[0], (c.dimension, c.dimension)))[0]
        scales = jnp.arange(1, c.dimension + 1) ** -c.correlation
        first = 2 * jax.random.normal(keys[1], (c.dimension, c.hidden)) * c.dimension**-0.5
        second = jax.random.normal(keys[2], (c.hidden, c.outputs)) * c.hidden**-0.5
        return scales[:, None] * turn, first, second

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        turn, first, second = instance
        keys = jax.random.split(jax.random.fold_in(key, PARTS.index(part)))
        x = jax.random.normal(keys[0], (size, self.config.dimension)) @ turn
        # The inputs' root mean square is one, however they are correlated.
        x = x * jnp.sqrt(self.config.dimension / jnp.sum(turn * turn))
        y = jnp.sin(x @ first) @ second
        return Batch(x, y + self.config.noise * jax.random.normal(keys[1], y.shape))


class MarkovConfig(AbstractDataConfig):
    """Text of a random language: the next symbol depends on the last ones, sparsely, and some symbols are rare."""

    kind: Literal["markov"] = "markov"
    symbols: Annotated[int, pydantic.Field(ge=2, le=4096)] = 32
    places: Count = 16
    order: Literal[1, 2] = 1
    masked: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    """Share of places whose symbol is hidden and to be told; 0 to tell the next one."""

    def build(self) -> "Markov":
        return Markov(self)


BRANCHES = 4


class Markov(AbstractData):
    """Each task has a language of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Literal["classes", "numbers"] = eqx.field(static=True)
    config: MarkovConfig = eqx.field(static=True)

    def __init__(self, config: MarkovConfig):
        what = "masked" if config.masked else "next"
        self.name = f"markov{config.order}-{what}-{config.symbols}"
        # A symbol more stands for what is hidden.
        self.inputs = (config.places, config.symbols + 1)
        self.outputs = config.symbols
        self.kind = "classes"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 3)
        # Few symbols can follow, frequent ones more often.
        popularity = -1.0 * jnp.log(1.0 + jnp.arange(c.symbols))
        contexts = c.symbols**c.order
        choices = jax.random.categorical(keys[0], popularity, shape=(contexts, BRANCHES))
        return choices, jax.random.gumbel(keys[1], (contexts, BRANCHES)), jax.random.permutation(keys[2], c.symbols)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        c, (choices, weights, names) = self.config, instance
        keys = jax.random.split(jax.random.fold_in(key, PARTS.index(part)), 4)
        start = jax.random.randint(keys[0], (c.order, size), 0, c.symbols)
        picks = jax.random.gumbel(keys[1], (c.places + 1, size, BRANCHES))

        def step(last: Array, pick: Array) -> tuple[Array, Array]:
            context = last[-1] if c.order == 1 else last[-2] * c.symbols + last[-1]
            following = jnp.take_along_axis(
                choices[context], jnp.argmax(weights[context] + pick, axis=1, keepdims=True), axis=1
            )[:, 0]
            return jnp.concatenate([last[1:], following[None]]), following

        _, text = jax.lax.scan(step, start, picks)
        text = names[text.T]
        if not c.masked:
            return Batch(text[:, :-1], text[:, 1:])
        text = text[:, 1:]
        is_hidden = jax.random.uniform(keys[2], text.shape) < c.masked
        return Batch(jnp.where(is_hidden, c.symbols, text), text, is_hidden.astype(jnp.float32) / c.masked)


DataConfig = Annotated[
    BundledConfig | ClustersConfig | TeacherConfig | MarkovConfig, pydantic.Field(discriminator="kind")
]
