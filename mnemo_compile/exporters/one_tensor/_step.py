"""The step of one tensor, written once for every target with its own kind of arrays."""

import abc
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from ...program import CompiledCell
from ...step import CARRIED, group_of, Phase
from ._shapes import network, share_phases

T = TypeVar("T")
"""An array of the target."""


class AbstractTensor(abc.ABC, Generic[T]):
    """One tensor during its step.

    Phases over chunks read its arrays. `rows` holds the values of the tensor as a whole, with one row each.
    """

    compiled: CompiledCell
    rows: dict[str, T]

    @abc.abstractmethod
    def of_tensor(self, phase: Phase) -> dict[str, T]:
        """The outputs of a phase over tensors, with one row each."""

    @abc.abstractmethod
    def total(self, phase: Phase) -> dict[str, T]:
        """The summed outputs of a phase over all chunks or over the sample, with one row each."""

    @abc.abstractmethod
    def advance(self, phase: Phase) -> dict[str, T]:
        """The next values of the tensor's arrays, without padding."""

    @abc.abstractmethod
    def all_finite(self, values: Sequence[T]) -> T:
        """One row of float32: 1 if every number is finite, else 0."""

    @abc.abstractmethod
    def without_row(self, name: str, row: T) -> T:
        """The single row without the axis of rows."""

    @abc.abstractmethod
    def counters(self, finite: T) -> dict[str, T]:
        """The outputs `next.step`, `next.skipped` and `finite`."""

    def run(self, phase: Phase) -> dict[str, T]:
        """The outputs of a phase."""
        if phase.rows == "tensors":
            return self.of_tensor(phase)
        return self.advance(phase) if phase.reduce is None else self.total(phase)


def step_outputs(tensor: AbstractTensor[T]) -> dict[str, T]:
    """The outputs of the whole step. The network's sums come from outside and are among the rows already."""
    outputs: dict[str, T] = {}
    finite = None
    for phase in tensor.compiled.plan:
        if phase.reduce == "network":
            continue
        results = tensor.run(phase)
        if phase.decides:
            sums = [tensor.rows[name] for name in network(tensor.compiled)]
            finite = tensor.rows["finite"] = tensor.all_finite([*results.values(), *sums])
        outputs.update(_next_values(tensor, phase, results))
        tensor.rows.update((name, row) for name, row in results.items() if group_of(name) not in CARRIED)
    assert finite is not None
    return {**outputs, **tensor.counters(finite)}


def _next_values(tensor: AbstractTensor[T], phase: Phase, results: Mapping[str, T]) -> dict[str, T]:
    """The outputs of a phase that the next step needs."""
    values = {name: value for name, value in results.items() if group_of(name) in CARRIED}
    if phase.rows == "tensors":
        values = {name: tensor.without_row(name, row) for name, row in values.items()}
    return {f"next.{name}": value for name, value in values.items()}


def share_outputs(tensor: AbstractTensor[T]) -> dict[str, T]:
    """The tensor's terms of the sums over the network."""
    outputs: dict[str, T] = {}
    for phase in share_phases(tensor.compiled):
        results = tensor.run(phase)
        if phase.reduce == "network":
            outputs.update((name, tensor.without_row(name, row)) for name, row in results.items())
        tensor.rows.update(results)
    return outputs
