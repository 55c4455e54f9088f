"""Toy environments of reinforcement learning, for many episodes side by side."""

import abc
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

State = Float[Array, "episodes state"]
Uniform = Float[Array, "episodes outputs"]


class AbstractEnvironment(eqx.Module):
    """Rules that turn states and actions into states and costs, and outputs of a network into actions."""

    observations: eqx.AbstractVar[int]
    outputs: eqx.AbstractVar[int]
    """How many numbers a policy's network gives."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Float[Array, " numbers"]:
        """The numbers of an environment: masses, lengths."""

    @abc.abstractmethod
    def start(self, numbers: Float[Array, " numbers"], key: PRNGKeyArray, count: int) -> State:
        """States at the start of episodes; the environment's numbers are their last ones."""

    @abc.abstractmethod
    def observe(self, state: State) -> Float[Array, "episodes observations"]:
        """What a policy sees."""

    @abc.abstractmethod
    def act(self, outputs: Float[Array, "episodes outputs"], uniform: Uniform) -> Float[Array, " episodes"]:
        """A random action."""

    @abc.abstractmethod
    def log_likelihood(
        self, outputs: Float[Array, "*batch outputs"], action: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        """Of an action, up to a constant."""

    @abc.abstractmethod
    def step(self, state: State, action: Float[Array, " episodes"]) -> tuple[State, Float[Array, " episodes"]]:
        """The next state, and the cost between 0 and 1 of being there."""


class CartPole(AbstractEnvironment):
    """A pole on a cart that is pushed to either side (Barto et al. 1983), with the rules of Gym (arXiv 1606.01540).

    A pole that has fallen stays so, and costs 1. One that stands costs half of the squares of its angle and its place,
    in units of those at which it counts as fallen.
    """

    observations: int = 4
    outputs: int = 2

    def draw(self, key: PRNGKeyArray) -> Float[Array, " numbers"]:
        return jax.random.uniform(key, (1,), minval=0.3, maxval=0.7)

    def start(self, numbers: Float[Array, " numbers"], key: PRNGKeyArray, count: int) -> State:
        state = jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05)
        return jnp.concatenate([state, jnp.ones((count, 1)), jnp.broadcast_to(numbers, (count, 1))], axis=1)

    def observe(self, state: State) -> Float[Array, "episodes observations"]:
        return state[:, :4] * jnp.array([1.0, 1.0, 5.0, 1.0])

    def act(self, outputs: Float[Array, "episodes outputs"], uniform: Uniform) -> Float[Array, " episodes"]:
        right = jax.nn.sigmoid(outputs[:, 1] - outputs[:, 0])
        return (uniform[:, 0] < right).astype(jnp.float32)

    def log_likelihood(
        self, outputs: Float[Array, "*batch outputs"], action: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        scores = jax.nn.log_softmax(outputs)
        return jnp.where(action > 0.5, scores[..., 1], scores[..., 0])

    def step(self, state: State, action: Float[Array, " episodes"]) -> tuple[State, Float[Array, " episodes"]]:
        x, speed, angle, turning, stands, length = state.T
        mass = 0.1
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        push = (10 * (2 * action - 1) + mass * length * turning**2 * sine) / (1 + mass)
        turn = (9.8 * sine - cosine * push) / (length * (4 / 3 - mass * cosine**2 / (1 + mass)))
        pull = push - mass * length * turn * cosine / (1 + mass)
        x, speed, angle, turning = x + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * turning, turning + 0.02 * turn
        stands = stands * (jnp.abs(x) < 2.4) * (jnp.abs(angle) < 0.2095)
        cost = jnp.where(stands > 0, 0.5 * ((x / 2.4) ** 2 + (angle / 0.2095) ** 2), 1.0)
        after = jnp.stack([x, speed, angle, turning, stands, length], axis=1)
        # What has fallen does not move any more, so that its numbers stay small.
        return jnp.where(stands[:, None] > 0, after, state.at[:, 4].set(0)), cost


class Pendulum(AbstractEnvironment):
    """A pendulum that is held upright by a torque, with the rules and the cost of Gym (arXiv 1606.01540).

    Costs are in units of the largest. Actions are normal around the output, with deviation ½, and the torque is at most
    2. An episode starts within a radian of the top, and not anywhere.
    """

    observations: int = 3
    outputs: int = 1

    def draw(self, key: PRNGKeyArray) -> Float[Array, " numbers"]:
        return jax.random.uniform(key, (1,), minval=0.7, maxval=1.3)

    def start(self, numbers: Float[Array, " numbers"], key: PRNGKeyArray, count: int) -> State:
        state = jax.random.uniform(key, (count, 2), minval=-1.0)
        return jnp.concatenate([state, jnp.broadcast_to(numbers, (count, 1))], axis=1)

    def observe(self, state: State) -> Float[Array, "episodes observations"]:
        return jnp.stack([jnp.cos(state[:, 0]), jnp.sin(state[:, 0]), state[:, 1]], axis=1)

    def act(self, outputs: Float[Array, "episodes outputs"], uniform: Uniform) -> Float[Array, " episodes"]:
        return outputs[:, 0] + 0.5 * jax.scipy.special.ndtri(jnp.clip(uniform[:, 0], 1e-6, 1 - 1e-6))

    def log_likelihood(
        self, outputs: Float[Array, "*batch outputs"], action: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        return -0.5 * jnp.square((action - outputs[..., 0]) / 0.5)

    def step(self, state: State, action: Float[Array, " episodes"]) -> tuple[State, Float[Array, " episodes"]]:
        angle, speed, mass = state.T
        torque = jnp.clip(2 * action, -2, 2)
        around = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = (around**2 + 0.1 * speed**2 + 0.001 * torque**2) / (jnp.pi**2 + 6.4 + 0.004)
        speed = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + 3 / mass * torque), -8, 8)
        return jnp.stack([angle + 0.05 * speed, speed, mass], axis=1), cost


class Catch(AbstractEnvironment):
    """A ball falls down a board of 10 × 5, and a paddle moves below it, with the rules of bsuite (arXiv 1908.03568).

    The ball takes nine steps, and costs 1 from then on if the paddle is not there. The paddle starts in the same column
    in all episodes. Here a move of it costs a hundredth, so that the best policy has a cost, too.
    """

    observations: int = 50
    outputs: int = 3

    def draw(self, key: PRNGKeyArray) -> Float[Array, " numbers"]:
        return jax.random.randint(key, (1,), 0, 5).astype(jnp.float32)

    def start(self, numbers: Float[Array, " numbers"], key: PRNGKeyArray, count: int) -> State:
        ball = jax.random.randint(key, (count, 1), 0, 5).astype(jnp.float32)
        paddle = jnp.broadcast_to(numbers, (count, 1))
        return jnp.concatenate([ball, jnp.zeros((count, 1)), paddle, paddle], axis=1)

    def observe(self, state: State) -> Float[Array, "episodes observations"]:
        ball, row, paddle, _ = state.T.astype(jnp.int32)
        return jax.nn.one_hot(5 * row + ball, 50) + jax.nn.one_hot(45 + paddle, 50)

    def act(self, outputs: Float[Array, "episodes outputs"], uniform: Uniform) -> Float[Array, " episodes"]:
        # The largest of outputs with Gumbel noise is a draw from their softmax.
        noise = -jnp.log(-jnp.log(jnp.clip(uniform, 1e-6, 1 - 1e-6)))
        return jnp.argmax(outputs + noise, axis=1).astype(jnp.float32)

    def log_likelihood(
        self, outputs: Float[Array, "*batch outputs"], action: Float[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        scores = jax.nn.log_softmax(outputs)
        return jnp.take_along_axis(scores, action.astype(jnp.int32)[..., None], axis=-1)[..., 0]

    def step(self, state: State, action: Float[Array, " episodes"]) -> tuple[State, Float[Array, " episodes"]]:
        ball, row, paddle, first = state.T
        falls = row < 9
        row = jnp.where(falls, row + 1, row)
        move = jnp.where(falls, action - 1, 0)
        paddle = jnp.clip(paddle + move, 0, 4)
        cost = jnp.where((row >= 9) & (paddle != ball), 1.0, 0.01 * jnp.abs(move))
        return jnp.stack([ball, row, paddle, first], axis=1), cost


EnvironmentName = Literal["cart-pole", "pendulum", "catch"]
ENVIRONMENTS: dict[EnvironmentName, Callable[[], AbstractEnvironment]] = {
    "cart-pole": CartPole,
    "pendulum": Pendulum,
    "catch": Catch,
}
