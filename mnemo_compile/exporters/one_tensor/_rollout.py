"""Verification of targets that export the step of one tensor."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...step import shape_numbers
from ...verify import AbstractExport, AbstractRollout


class AbstractOneTensorExport(AbstractExport):
    """An export of the functions `init`, `update` and, if the cell has that phase, `share`."""

    @property
    @abc.abstractmethod
    def has_share(self) -> bool:
        """Whether there is a function `share`."""

    @abc.abstractmethod
    def run(self, function: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a function. Inputs that it does not have are ignored."""

    def forms(self, name: str) -> tuple[str, ...]:
        return (name,)

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        options = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps or 0}
        return _Rollout(self, params, options)


class _Rollout(AbstractRollout):
    """A training run over several tensors, with a call per tensor."""

    def __init__(self, export: AbstractOneTensorExport, params: Sequence[np.ndarray], options: Mapping[str, float]):
        self.export = export
        self.shapes = [value.shape for value in params]
        flat = [value.reshape(-1) for value in params]
        self.values: list[dict[str, Any]] = [{"param": value, **export.run("init", {"param": value})} for value in flat]
        numbers = [{**options, **shape_numbers(shape)} for shape in self.shapes]
        self.numbers = [{name: np.asarray(value, np.float32) for name, value in each.items()} for each in numbers]

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs = [
            {**values, **numbers, "grad": grad.reshape(-1)}
            for values, numbers, grad in zip(self.values, self.numbers, grads, strict=True)
        ]
        sums: dict[str, np.ndarray] = {}
        if self.export.has_share:
            terms = [self.export.run("share", each) for each in inputs]
            sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        results = [self.export.run("update", {**each, **sums}) for each in inputs]
        self.values = [{name: each[f"next.{name}"] for name in self.values[0]} for each in results]
        return [
            np.asarray(values["param"]).reshape(shape) for values, shape in zip(self.values, self.shapes, strict=True)
        ]
