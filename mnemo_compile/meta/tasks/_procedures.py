"""Procedures that draw examples without end; each task has a distribution of its own."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, PRNGKeyArray

from ._bundled import hide
from ._data import AbstractData, AbstractDataConfig, Batch, Count, Part, PARTS, Reads, Shape, Tells

# `judge` and `held_out` draw from the same distribution as `train`, with other keys.


class ClustersConfig(AbstractDataConfig):
    """Classes that are mixtures of normal distributions, bent by a random map."""

    kind: Literal["clusters"] = "clusters"
    dimension: Count = 16
    classes: Annotated[int, pydantic.Field(ge=2, le=256)] = 8
    modes: Annotated[int, pydantic.Field(ge=1, le=16)] = 3
    """Normal distributions a class."""
    spread: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.7
    """Standard deviation of each, where the centres have 1."""

    @property
    def reads(self) -> Reads:
        return "numbers"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Clusters":
        return Clusters(self)


class Clusters(AbstractData):
    """Each task has centres and a map of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
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

    @property
    def reads(self) -> Reads:
        return "numbers"

    @property
    def tells(self) -> Tells:
        return "numbers"

    def build(self) -> "Teacher":
        return Teacher(self)


class Teacher(AbstractData):
    """Each task has a network and directions of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
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

    @property
    def reads(self) -> Reads:
        return "symbols"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Markov":
        return Markov(self)


BRANCHES = 4


class Markov(AbstractData):
    """Each task has a language of its own."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
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
        return hide(text[:, 1:], keys[2], c.masked, c.symbols)


class SignalsConfig(AbstractDataConfig):
    """One-dimensional signals in the manner of MNIST-1D (Greydanus 2020, arXiv 2011.14439): a template a class, moved,
    stretched, tilted and covered with noise."""

    kind: Literal["signals"] = "signals"
    length: Count = 40
    classes: Annotated[int, pydantic.Field(ge=2, le=256)] = 10
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.25

    @property
    def reads(self) -> Reads:
        return "numbers"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Signals":
        return Signals(self)


CORNERS = 12
"""Points that a template is drawn through."""


class Signals(AbstractData):
    """Each task has its own templates."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: SignalsConfig = eqx.field(static=True)

    def __init__(self, config: SignalsConfig):
        self.name = f"signals-{config.length}"
        self.inputs = (config.length,)
        self.outputs = config.classes
        self.kind = config.tells
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.normal(key, (self.config.classes, CORNERS))

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        length = self.config.length
        keys = jax.random.split(jax.random.fold_in(key, PARTS.index(part)), 6)
        label = jax.random.randint(keys[0], (size,), 0, self.config.classes)
        shift = jax.random.uniform(keys[1], (size, 1), minval=0.0, maxval=0.5)
        stretch = jax.random.uniform(keys[2], (size, 1), minval=1.2, maxval=2.0)
        # Where a template is read, in its corners; outside it the signal is zero.
        place = (jnp.linspace(0, 1, length) - shift) * stretch * (CORNERS - 1)
        before = jnp.clip(jnp.floor(place), 0, CORNERS - 2).astype(jnp.int32)
        template = instance[label]
        low = jnp.take_along_axis(template, before, axis=1)
        high = jnp.take_along_axis(template, before + 1, axis=1)
        inside = (place >= 0) & (place <= CORNERS - 1)
        signal = jnp.where(inside, low + (high - low) * (place - before), 0)
        tilt = 0.5 * jax.random.normal(keys[3], (size, 1)) * jnp.linspace(-1, 1, length)
        size_of = jnp.exp(0.3 * jax.random.normal(keys[4], (size, 1)))
        noise = self.config.noise * jax.random.normal(keys[5], (size, length))
        return Batch(signal * size_of + tilt + noise, label)


class ShapesConfig(AbstractDataConfig):
    """Grey images of one of ten figures at one of ten places, of any size and brightness, with noise."""

    kind: Literal["shapes"] = "shapes"
    side: Annotated[int, pydantic.Field(ge=8, le=64)] = 16
    labels: Literal["figure", "place"] = "figure"
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.3

    @property
    def reads(self) -> Reads:
        return "images"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Shapes":
        return Shapes(self)


class Shapes(AbstractData):
    """Each task has its own order of labels."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: ShapesConfig = eqx.field(static=True)

    def __init__(self, config: ShapesConfig):
        self.name = f"shapes-{config.side}-{config.labels}"
        self.inputs = (config.side, config.side)
        self.outputs = 10
        self.kind = config.tells
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.outputs)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        keys = jax.random.split(jax.random.fold_in(key, PARTS.index(part)), 6)
        figure = jax.random.randint(keys[0], (size,), 0, 10)
        place = jax.random.randint(keys[1], (size,), 0, 10)
        # Two rows of five places, and some way off them.
        centre = jnp.stack([place // 5 - 0.5, 0.35 * (place % 5 - 2)], axis=1)
        centre = centre + 0.1 * jax.random.uniform(keys[2], (size, 2), minval=-1.0)
        radius = jax.random.uniform(keys[3], (size, 1, 1), minval=0.25, maxval=0.4)
        axis = jnp.linspace(-1, 1, self.config.side)
        y = (axis[:, None] - centre[:, 0, None, None]) / radius
        x = (axis[None, :] - centre[:, 1, None, None]) / radius
        round_, square = jnp.sqrt(x * x + y * y), jnp.maximum(jnp.abs(x), jnp.abs(y))
        inside = square < 1
        figures = jnp.stack(
            [
                round_ < 1,
                (round_ < 1) & (round_ > 0.6),
                inside,
                inside & (square > 0.6),
                inside & (jnp.minimum(jnp.abs(x), jnp.abs(y)) < 0.3),
                inside & (jnp.abs(jnp.abs(x) - jnp.abs(y)) < 0.4),
                inside & (y > 2 * jnp.abs(x) - 1),
                inside & (jnp.sin(5 * x) > 0),
                inside & (jnp.sin(5 * y) > 0),
                jnp.abs(x) + jnp.abs(y) < 1,
            ],
            axis=1,
        )
        drawn = figures[jnp.arange(size), figure].astype(jnp.float32)
        bright = jax.random.uniform(keys[4], (size, 1, 1), minval=0.7, maxval=1.3)
        image = 2 * (bright * drawn - 0.2) + self.config.noise * jax.random.normal(keys[5], drawn.shape)
        return Batch(image, instance[figure if self.config.labels == "figure" else place])


class ModularConfig(AbstractDataConfig):
    """a ∘ b modulo a number, as three symbols of which the last place is to be told."""

    kind: Literal["modular"] = "modular"
    modulus: Annotated[int, pydantic.Field(ge=2, le=1024)] = 31
    operation: Literal["sum", "product"] = "sum"

    @property
    def reads(self) -> Reads:
        return "symbols"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Modular":
        return Modular(self)


class Modular(AbstractData):
    """Each task has its own names of the numbers. What is held out was seen in training too: there is no more."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: ModularConfig = eqx.field(static=True)

    def __init__(self, config: ModularConfig):
        self.name = f"modular-{config.operation}-{config.modulus}"
        self.inputs = (3, config.modulus + 1)
        self.outputs = config.modulus
        self.kind = config.tells
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.modulus)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        modulus = self.config.modulus
        terms = jax.random.randint(jax.random.fold_in(key, PARTS.index(part)), (2, size), 0, modulus)
        result = (terms[0] + terms[1] if self.config.operation == "sum" else terms[0] * terms[1]) % modulus
        asked = jnp.full((size,), modulus)
        targets = jnp.broadcast_to(instance[result][:, None], (size, 3))
        weight = jnp.broadcast_to(jnp.array([0.0, 0.0, 3.0]), (size, 3))
        return Batch(jnp.stack([instance[terms[0]], instance[terms[1]], asked], axis=1), targets, weight)


class ParityConfig(AbstractDataConfig):
    """Signs, and whether the product of a few of them is negative."""

    kind: Literal["parity"] = "parity"
    dimension: Count = 16
    """Signs that are shown."""
    counted: Annotated[int, pydantic.Field(ge=1, le=8)] = 3
    """Signs that count."""

    @property
    def reads(self) -> Reads:
        return "numbers"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Parity":
        return Parity(self)

    @pydantic.model_validator(mode="after")
    def _has_as_many(self) -> "ParityConfig":
        if self.counted > self.dimension:
            raise ValueError(f"counted = {self.counted} are more signs than dimension = {self.dimension}")
        return self


class Parity(AbstractData):
    """Each task counts signs at places of its own (Barak et al. 2022, arXiv 2207.08799)."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: ParityConfig = eqx.field(static=True)

    def __init__(self, config: ParityConfig):
        self.name = f"parity-{config.counted}-of-{config.dimension}"
        self.inputs = (config.dimension,)
        self.outputs = 2
        self.kind = "classes"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.dimension)[: self.config.counted]

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        key = jax.random.fold_in(key, PARTS.index(part))
        signs = jax.random.rademacher(key, (size, self.config.dimension), jnp.float32)
        return Batch(signs, (jnp.prod(signs[:, instance], axis=1) < 0).astype(jnp.int32))


class RearrangedConfig(AbstractDataConfig):
    """Symbols drawn at random, which are to be told in another order: at each place what stands at another one."""

    kind: Literal["rearranged"] = "rearranged"
    symbols: Annotated[int, pydantic.Field(ge=2, le=4096)] = 32
    places: Count = 16

    @property
    def reads(self) -> Reads:
        return "symbols"

    @property
    def tells(self) -> Tells:
        return "classes"

    def build(self) -> "Rearranged":
        return Rearranged(self)


class Rearranged(AbstractData):
    """Each task has its own order of places."""

    name: str = eqx.field(static=True)
    inputs: Shape = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    kind: Tells = eqx.field(static=True)
    config: RearrangedConfig = eqx.field(static=True)

    def __init__(self, config: RearrangedConfig):
        self.name = f"rearranged-{config.places}-of-{config.symbols}"
        self.inputs = (config.places, config.symbols)
        self.outputs = config.symbols
        self.kind = "classes"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return jax.random.permutation(key, self.config.places)

    def batch(self, instance: Any, key: PRNGKeyArray, part: Part, size: int) -> Batch:
        c = self.config
        text = jax.random.randint(jax.random.fold_in(key, PARTS.index(part)), (size, c.places), 0, c.symbols)
        return Batch(text, text[:, instance])
