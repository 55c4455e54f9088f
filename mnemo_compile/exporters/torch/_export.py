"""An exported torch package as verification runs it."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...verify import AbstractExport, AbstractRollout
from ._interpreted import can_interpret, FORM, Interpreter, MOST_ROWS

_BLOCK_SIZE = 512
"""A small size, so that the step cuts the largest tensor of verification into blocks."""


class TorchExport(AbstractExport):
    def __init__(self, package: ModuleType):
        import torch

        self.torch = torch
        self.package = package
        self.phases = package._phases
        self.interpreter = Interpreter(pathlib.Path(package.__path__[0]))
        # Products of tiles are in the dtype of `products`.
        self.weights = {**package._step.weights(torch.device("cpu"), torch.float32), "products": torch.empty(0)}

        self.rows: dict[str, str] = {phase.name: phase.rows for phase in package._step.PHASES}

    def forms(self, name: str) -> tuple[str, ...]:
        forms = [form for form in (name, f"fused_{name}") if form in self.phases.INPUTS]
        # One kernel computes all phases over tiles.
        kernel = "tiles" if self.rows[name] == "tiles" else name
        has_kernel = kernel in self.phases.KERNELS and can_interpret()
        return (*forms, *([f"{FORM}{name}"] if has_kernel else []))

    def most_rows(self, name: str) -> int | None:
        return MOST_ROWS[self.rows[name.removeprefix(FORM)]] if name.startswith(FORM) else None

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name.startswith(FORM):
            with self.package._step.one_thread():
                return self.interpreter.run(name.removeprefix(FORM), inputs)
        env = {key: self.torch.tensor(value) for key, value in inputs.items()}
        prepare = f"prepare_{name.removeprefix('fused_')}"
        with self.package._step.one_thread():
            if prepare in self.phases.INPUTS:
                env.update(self._run(prepare, env))
            outputs = self._run(name, env)
        return {key: value.numpy() for key, value in outputs.items()}

    def _run(self, name: str, env: Mapping[str, Any]) -> dict[str, Any]:
        return getattr(self.phases, name)(self.weights, {key: env[key] for key in self.phases.INPUTS[name]})

    def start(
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        tensors = [self.torch.nn.Parameter(self.torch.tensor(value)) for value in params.values()]
        optimizer = self.package.Mnemosyne(
            zip(params, tensors, strict=True),
            lr=lr,
            weight_decay=weight_decay,
            total_steps=total_steps,
            block_size=_BLOCK_SIZE,
        )
        return _Rollout(tensors, optimizer, self.package._step.one_thread)


class _Rollout(AbstractRollout):
    def __init__(
        self,
        tensors: list[Any],
        optimizer: Any,
        one_thread: Callable[[], contextlib.AbstractContextManager[None]],
    ):
        # Threads cost more than they save on the small tensors of verification.
        self.one_thread = one_thread
        self.tensors = tensors
        self.optimizer = optimizer

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        for tensor, grad in zip(self.tensors, grads, strict=True):
            tensor.grad = tensor.new_tensor(grad)
        with self.one_thread():
            self.optimizer.step()
        return [tensor.detach().numpy().copy() for tensor in self.tensors]
