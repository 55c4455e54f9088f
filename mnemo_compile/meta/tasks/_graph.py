"""Graph networks that name the nodes of a graph."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, Split, SPLITS
from .networks import linear, Params, Tensor, Width

CLASSES = 4
SHARES = (0.5, 0.25, 0.25)
"""Fraction of the nodes in each split."""


class GraphConfig(AbstractFamilyConfig):
    """Graph convolutions (Kipf and Welling 2016, arXiv 1609.02907) on a stochastic block model (Holland et al. 1983).

    Nodes of one class are more often connected, and their features have a common mean.
    """

    kind: Literal["graph"]
    nodes: Annotated[int, pydantic.Field(ge=16, le=1024)] = 128
    features: Count = 32
    within: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1
    between: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.03
    """How often two nodes of one class, and of two classes, are connected."""
    signal: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.3
    """Deviation of the classes' means, where that of the nodes around them is 1."""
    width: Width = 64
    depth: Annotated[int, pydantic.Field(ge=1, le=8)] = 2

    def build(self) -> "Graph":
        return Graph(self)


class Graph(AbstractFamily):
    """Each task has its own graph. A batch is the whole graph, and half of a split's nodes count in the loss."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: GraphConfig = eqx.field(static=True)

    def __init__(self, config: GraphConfig):
        c = config
        widths = [c.features, *[c.width] * (c.depth - 1), CLASSES]
        pairs = enumerate(zip(widths[:-1], widths[1:], strict=True), 1)
        self.tensors = tuple(tensor for place, pair in pairs for tensor in linear(f"conv{place}", *pair, 2**0.5))
        self.name = f"graph-{c.nodes}-{c.features}-{c.signal:g} {c.width}x{c.depth}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 5)
        label = jax.random.randint(keys[0], (c.nodes,), 0, CLASSES)
        often = jnp.where(label[:, None] == label, c.within, c.between)
        above = jnp.triu(jax.random.bernoulli(keys[1], often), 1).astype(jnp.float32)
        adjacency = above + above.T + jnp.eye(c.nodes)
        degree = adjacency.sum(axis=0) ** -0.5
        means = c.signal * jax.random.normal(keys[2], (CLASSES, c.features))
        features = means[label] + jax.random.normal(keys[3], (c.nodes, c.features))
        return degree[:, None] * adjacency * degree, features, label, jax.random.permutation(keys[4], c.nodes)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        adjacency, features, label, order = instance
        edges = jnp.cumsum(jnp.array([0, *SHARES]) * self.config.nodes)
        first, last = edges[SPLITS.index(split)], edges[SPLITS.index(split) + 1]
        weight = ((order >= first) & (order < last)) * jax.random.bernoulli(key, shape=order.shape)
        # The normalised adjacency beside the features, in one array.
        return Batch(jnp.concatenate([adjacency, features], axis=1), label, weight.astype(jnp.float32))

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        scores = jax.nn.log_softmax(self._outputs(params, batch))
        surprise = -jnp.sum(jax.nn.one_hot(batch.targets, CLASSES) * scores, axis=-1)
        return _mean(surprise, batch)

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return _mean(jnp.argmax(self._outputs(params, batch), axis=-1) == batch.targets, batch)

    def _outputs(self, params: Params, batch: Batch) -> Float[Array, "nodes classes"]:
        adjacency, x = batch.inputs[:, : self.config.nodes], batch.inputs[:, self.config.nodes :]
        for place in range(0, len(params), 2):
            x = adjacency @ (x @ params[place]) + params[place + 1]
            x = jax.nn.relu(x) if place < len(params) - 2 else x
        return x


def _mean(values: Array, batch: Batch) -> Float[Array, ""]:
    assert batch.weight is not None
    return jnp.sum(values * batch.weight) / jnp.maximum(jnp.sum(batch.weight), 1)
