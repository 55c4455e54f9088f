"""Verification of targets that export the step of one tensor."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...cell import AbstractCell
from ...step.reference import layout_of
from ...verify import AbstractExport, AbstractRollout
from ._signature import function_name
from ._view import views_of


class AbstractOneTensorExport(AbstractExport):
    """An export of the functions `init`, `update` and, if the cell has that phase, `share`.

    If the cell has tiles, there are `init_matrix`, `update_matrix` and `share_matrix` too.
    """

    cell: AbstractCell

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
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        options = {"lr": lr, "weight_decay": weight_decay, "total_steps": total_steps or 0, "pretrained": -1}
        return _Rollout(self, params, options)


class _Rollout(AbstractRollout):
    """A training run over several tensors, with a call per tensor."""

    def __init__(self, export: AbstractOneTensorExport, params: Mapping[str, np.ndarray], options: Mapping[str, float]):
        self.export = export
        layout = layout_of(export.cell, [value.shape for value in params.values()], list(params))
        self.views = views_of(layout)
        self.numbers = [
            {
                name: np.asarray(value, np.float32)
                for name, value in {**options, **{name: rows[i] for name, rows in layout.shape_rows.items()}}.items()
            }
            for i in range(len(params))
        ]
        arrays = [{"param": view.of(value)} for view, value in zip(self.views, params.values(), strict=True)]
        self.values: list[dict[str, Any]] = [
            {**array, **initial} for array, initial in zip(arrays, self._run("init", arrays), strict=True)
        ]

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs = [
            {**values, **numbers, "grad": view.of(grad)}
            for values, numbers, view, grad in zip(self.values, self.numbers, self.views, grads, strict=True)
        ]
        sums: dict[str, np.ndarray] = {}
        if self.export.has_share:
            terms = self._run("share", inputs)
            sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        results = self._run("update", [{**each, **sums} for each in inputs])
        self.values = [
            {name: each[f"next.{name}"] for name in values} for values, each in zip(self.values, results, strict=True)
        ]
        return [view.tensor(np.asarray(values["param"])) for view, values in zip(self.views, self.values, strict=True)]

    def _run(self, function: str, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The outputs of a function for each tensor."""
        names = [function_name(function, view.has_tiles) for view in self.views]
        return [self.export.run(name, each) for name, each in zip(names, inputs, strict=True)]
