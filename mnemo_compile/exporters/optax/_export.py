"""An exported optax package as verification runs it."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...verify import AbstractExport, AbstractRollout


class OptaxExport(AbstractExport):
    def __init__(self, package: ModuleType):
        self.package = package
        self.phases = package._optimizer._phases
        self.weights = package._optimizer._weights()

    def forms(self, name: str) -> tuple[str, ...]:
        return (name,)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = {key: jnp.asarray(inputs[key]) for key in self.phases.INPUTS[name]}
        outputs = jax.jit(getattr(self.phases, name))(self.weights, arrays)
        return {key: np.asarray(value) for key, value in outputs.items()}

    def start(
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        optimizer = self.package.mnemosyne(lr=lr, weight_decay=weight_decay, total_steps=total_steps)
        return _Rollout({name: jnp.asarray(value) for name, value in params.items()}, optimizer)


_Tree = dict[str, jax.Array]


class _Rollout(AbstractRollout):
    def __init__(self, params: _Tree, optimizer: Any):
        import optax

        self.names = list(params)
        self.params = params
        self.state = optimizer.init(params)

        def advance(params: _Tree, state: Any, grads: _Tree) -> tuple[_Tree, Any]:
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state  # pyright: ignore[reportReturnType]

        self.advance = jax.jit(advance)

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        tree = {name: jnp.asarray(grad) for name, grad in zip(self.names, grads, strict=True)}
        self.params, self.state = self.advance(self.params, self.state, tree)
        return [np.asarray(self.params[name]) for name in self.names]
