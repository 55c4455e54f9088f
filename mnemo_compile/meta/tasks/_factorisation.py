"""Matrices of which some entries are known, completed by a product of smaller ones."""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, PRNGKeyArray

from ._family import AbstractFamily, AbstractFamilyConfig
from .data import Batch, Count, Split, SPLITS
from .networks import Params, Tensor, Width


class FactorisationConfig(AbstractFamilyConfig):
    """Low-rank matrices under noise.

    Two factors with biases are a recommender (Koren et al. 2009). More than two, square and without biases, are a deep
    factorisation from a small start (Arora et al. 2019, arXiv 1905.13655).
    """

    kind: Literal["factorisation"]
    rows: Count = 64
    columns: Count = 64
    rank: Width = 4
    """Of the matrix that is to be completed."""
    inner: Width = 64
    """Width of the factors."""
    factors: Annotated[int, pydantic.Field(ge=2, le=8)] = 3
    deviation: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.1
    """Of the factors' entries at the start."""
    noise: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.1
    fraction: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.3
    """Of the entries, known to training. The others are divided between the other splits."""
    biases: bool = False
    """Whether each row and each column has a number of its own."""
    batch: Count = 256

    def build(self) -> "Factorisation":
        return Factorisation(self)


class Factorisation(AbstractFamily):
    """Each task has its own matrix, and its own known entries."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: FactorisationConfig = eqx.field(static=True)

    def __init__(self, config: FactorisationConfig):
        c = config
        sizes = [c.rows, *[c.inner] * (c.factors - 1), c.columns]
        names = [f"factors.{place}.weight" for place in range(c.factors)]
        if c.biases:
            names[0], names[-1] = "user_embedding.weight", "item_embedding.weight"
        pairs = zip(sizes[:-1], sizes[1:], names, strict=True)
        matrices = [Tensor((rows, columns), c.deviation, name=name) for rows, columns, name in pairs]
        # An embedding has a row per item, as in torch.
        matrices[-1] = matrices[-1]._replace(shape=matrices[-1].shape[::-1])
        biases = (Tensor((c.rows,), name="user_bias"), Tensor((c.columns,), name="item_bias")) if c.biases else ()
        self.tensors = (*matrices, *biases)
        self.name = f"factorisation-{'x'.join(map(str, sizes))}-rank{c.rank} b{c.batch}"
        self.config = config

    def draw(self, key: PRNGKeyArray) -> Any:
        c, keys = self.config, jax.random.split(key, 5)
        left, right = jax.random.normal(keys[0], (c.rows, c.rank)), jax.random.normal(keys[1], (c.columns, c.rank))
        matrix = left @ right.T * c.rank**-0.5 + c.noise * jax.random.normal(keys[2], (c.rows, c.columns))
        if c.biases:
            matrix = matrix + jax.random.normal(keys[3], (c.rows, 1))
        return matrix, jax.random.permutation(keys[4], c.rows * c.columns)

    def batch(self, instance: Any, key: PRNGKeyArray, split: Split) -> Batch:
        matrix, order = instance
        known = int(self.config.fraction * order.size)
        middle = (known + order.size) // 2
        first, last = dict(zip(SPLITS, ((0, known), (known, middle), (middle, order.size)), strict=True))[split]
        entry = order[jax.random.randint(key, (self.config.batch,), first, last)]
        return Batch(entry, matrix.reshape(-1)[entry])

    def loss(self, params: Params, batch: Batch) -> Float[Array, ""]:
        product, *inner = params[: self.config.factors]
        for factor in inner[:-1]:
            product = product @ factor
        whole = product @ inner[-1].T
        if self.config.biases:
            whole = whole + params[-2][:, None] + params[-1]
        return 0.5 * jnp.mean(jnp.square(whole.reshape(-1)[batch.inputs] - batch.targets))

    def accuracy(self, params: Params, batch: Batch) -> Float[Array, ""]:
        return jnp.array(jnp.nan)
