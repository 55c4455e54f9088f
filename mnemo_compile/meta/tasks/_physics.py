"""Networks that solve partial differential equations."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, Split, split_key
from .networks import Params, perceive, perceptron, Tensor, Width

VISCOSITY = 0.01 / jnp.pi
Points = Float[Array, "points 2"]
Equation = Literal["burgers", "helmholtz"]


class PhysicsConfig(AbstractFamilyConfig):
    """A tanh perceptron u of two coordinates whose residual of an equation is minimised.

    Burgers' equation in place and time (Raissi et al. 2017, arXiv 1711.10561), or Helmholtz's in the plane (Wang et al.
    2020, arXiv 2001.04536).
    """

    kind: Literal["physics"]
    equation: Equation
    widths: Annotated[tuple[Width, ...], pydantic.Field(min_length=1, max_length=8)] = (32, 32, 32)
    batch: Count = 128
    """Points inside; half as many are on the border."""

    def build(self) -> "Physics":
        return Physics(self)


class Physics(AbstractFamily):
    """The mean squared residual inside, and the mean squared error on the border.

    Each task has its own solution: Burgers' equation has a start of its own, and Helmholtz's a source of its own.
    """

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: PhysicsConfig = eqx.field(static=True)

    def __init__(self, config: PhysicsConfig):
        self.tensors = perceptron("net", [2, *config.widths, 1])
        self.name = f"{config.equation}-{'x'.join(map(str, config.widths))} b{config.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        if self.config.equation == "burgers":
            return jax.random.uniform(key, (2,), minval=jnp.array([0.7, -0.3]), maxval=jnp.array([1.3, 0.3]))
        return jnp.pi * jax.random.randint(key, (2,), 1, 3)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        count, keys = self.config.batch, jax.random.split(split_key(key, split), 3)
        inside = jax.random.uniform(keys[0], (count, 2), minval=-1.0)
        if self.config.equation == "burgers":
            # The second coordinate is the time, from 0 to 1. Half of the border is the start, the other half the ends.
            inside = inside.at[:, 1].set(0.5 * (inside[:, 1] + 1))
            place, time = jax.random.uniform(keys[1], (2, count // 4, 1))
            start = 2 * place - 1
            first, second = instance
            value = -first * jnp.sin(jnp.pi * start) + second * jnp.sin(2 * jnp.pi * start)
            end = jnp.sign(jax.random.uniform(keys[2], time.shape, minval=-1.0))
            known = jnp.concatenate(
                [
                    jnp.concatenate([start, jnp.zeros_like(start), value], axis=1),
                    jnp.concatenate([end, time, jnp.zeros_like(time)], axis=1),
                ]
            )
            return Batch(jnp.concatenate([inside, jnp.zeros((count, 1))], axis=1), known)
        wave = jnp.prod(jnp.sin(instance * inside), axis=1, keepdims=True)
        source = (1 - jnp.sum(instance**2)) * wave
        along = jax.random.uniform(keys[1], (count // 2, 1), minval=-1.0)
        side = jnp.where(jnp.arange(count // 2)[:, None] % 2 == 0, -1.0, 1.0)
        pairs = jnp.concatenate([along, side], axis=1)
        border = jnp.where(jax.random.bernoulli(keys[2], shape=(count // 2, 1)), pairs, pairs[:, ::-1])
        known = jnp.concatenate([border, jnp.zeros_like(along)], axis=1)
        return Batch(jnp.concatenate([inside, source], axis=1), known)

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        def solution(points: Points) -> Float[Array, "points 1"]:
            return perceive(params, points, jnp.tanh)

        inside, source = batch.inputs[:, :2], batch.inputs[:, 2:]
        residual = residual_of(self.config.equation, solution, inside) - source
        error = solution(batch.targets[:, :2]) - batch.targets[:, 2:]
        return jnp.mean(jnp.square(residual)) + jnp.mean(jnp.square(error))

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)


def _slope(function: Any, axis: int) -> Any:
    """The derivative along a coordinate, as a function of points."""

    def slope(points: Points) -> Float[Array, "points 1"]:
        direction = jnp.zeros_like(points).at[:, axis].set(1)
        return jax.jvp(function, (points,), (direction,))[1]

    return slope


def residual_of(equation: Equation, solution: Any, points: Points) -> Float[Array, "points 1"]:
    """The left side of an equation, for a function of points."""
    if equation == "burgers":
        slope = _slope(solution, 0)
        return _slope(solution, 1)(points) + solution(points) * slope(points) - VISCOSITY * _slope(slope, 0)(points)
    return _slope(_slope(solution, 0), 0)(points) + _slope(_slope(solution, 1), 1)(points) + solution(points)
