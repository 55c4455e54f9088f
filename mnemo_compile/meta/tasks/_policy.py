"""Policies of toy environments, by the gradient of the expected cost."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._environments import AbstractEnvironment, EnvironmentName, ENVIRONMENTS
from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, Split, split_key
from .networks import Params, perceive, perceptron, Tensor, Width


class PolicyConfig(AbstractFamilyConfig):
    """REINFORCE (Williams 1992), with the mean over the episodes of a batch as the baseline."""

    kind: Literal["policy"]
    environment: EnvironmentName
    widths: Annotated[tuple[Width, ...], pydantic.Field(min_length=1, max_length=8)] = (32, 32)
    horizon: Count = 50
    """Steps of an episode."""
    batch: Count = 32
    """Episodes of a batch."""

    def build(self) -> "Policy":
        return Policy(self)


class Policy(AbstractFamily):
    """The mean cost of a step. Its gradient is that of the expectation, as estimated by the episodes."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: PolicyConfig = eqx.field(static=True)
    environment: AbstractEnvironment = eqx.field(static=True)

    def __init__(self, config: PolicyConfig):
        self.environment = ENVIRONMENTS[config.environment]()
        *hidden, weight, bias = perceptron("policy", [self.environment.observations, *config.widths, 1])
        outputs = self.environment.outputs
        # The first policy hardly depends on what it sees.
        head = Tensor((weight.shape[0], outputs), 0.1 * weight.deviation, name="head.weight")
        self.tensors = (*hidden, head, Tensor((outputs,), name="head.bias"))
        widths = "x".join(map(str, config.widths))
        self.name = f"policy-{config.environment}-{widths} t{config.horizon} b{config.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        return self.environment.draw(key)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        c, keys = self.config, jax.random.split(split_key(key, split))
        start = self.environment.start(instance, keys[0], c.batch)
        # What chance decides in each step of each episode.
        return Batch(start, jax.random.uniform(keys[1], (c.horizon, c.batch, self.environment.outputs)))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        seen, actions, costs = jax.lax.stop_gradient(self._episodes(params, batch))
        later = jnp.cumsum(costs[::-1], axis=0)[::-1] / self.config.horizon
        advantage = later - later.mean(axis=1, keepdims=True)
        likelihood = self.environment.log_likelihood(self._outputs(params, seen), actions)
        surrogate = jnp.mean(jnp.sum(advantage * likelihood, axis=0))
        return jnp.mean(costs) + surrogate - jax.lax.stop_gradient(surrogate)

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)

    def _outputs(self, params: Params, seen: Float[Array, "*batch observations"]) -> Float[Array, "*batch outputs"]:
        return perceive(params, seen, jnp.tanh)

    def _episodes(self, params: Params, batch: Batch) -> tuple[Array, Array, Array]:
        """What is seen, done and paid in each step of each episode."""
        frozen = jax.lax.stop_gradient(list(params))

        def step(state: Array, uniform: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            seen = self.environment.observe(state)
            action = self.environment.act(self._outputs(frozen, seen), uniform)
            after, cost = self.environment.step(state, action)
            return after, (seen, action, cost)

        return jax.lax.scan(step, batch.inputs, batch.targets)[1]
