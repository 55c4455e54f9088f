"""The step of one tensor, written once for every target with its own kind of arrays."""

import abc
import itertools
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from ...step import CARRIED, group_of, Phase
from ._signature import Signature

T = TypeVar("T")
"""An array of the target."""


class AbstractTensor(abc.ABC, Generic[T]):
    """One tensor during its step.

    Phases over chunks and tiles read its arrays. `rows` holds the values of the tensor as a whole, with one row each.
    """

    signature: Signature
    rows: dict[str, T]

    @abc.abstractmethod
    def of_tensor(self, phase: Phase) -> dict[str, T]:
        """The outputs of a phase over tensors, with one row each."""

    @abc.abstractmethod
    def total(self, phase: Phase) -> dict[str, T]:
        """The summed outputs of a phase over all chunks or over the sample, with one row each."""

    @abc.abstractmethod
    def advance(self, phase: Phase) -> dict[str, T]:
        """The next values of the tensor's arrays, from a phase over all chunks."""

    @abc.abstractmethod
    def advance_tiles(self, phases: Sequence[Phase]) -> dict[str, T]:
        """The next values of the tensor's arrays, from consecutive phases over tiles."""

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
        """The outputs of a phase over tensors or chunks."""
        if phase.rows == "tensors":
            return self.of_tensor(phase)
        return self.advance(phase) if phase.reduce is None else self.total(phase)


def step_outputs(tensor: AbstractTensor[T]) -> dict[str, T]:
    """The outputs of the whole step. The network's sums come from outside and are among the rows already."""
    outputs: dict[str, T] = {}
    for is_of_tiles, phases in itertools.groupby(tensor.signature.plan, lambda phase: phase.rows == "tiles"):
        if is_of_tiles:
            outputs.update(_next(tensor.advance_tiles(tuple(phases))))
            continue
        for phase in phases:
            if phase.reduce != "network":
                outputs.update(_run(tensor, phase))
    return {**outputs, **tensor.counters(tensor.rows["finite"])}


def _run(tensor: AbstractTensor[T], phase: Phase) -> dict[str, T]:
    """Runs a phase. Its rows serve later phases, and what it carries to the next step is an output."""
    results = tensor.run(phase)
    if phase.decides:
        sums = [tensor.rows[name] for name in tensor.signature.network]
        tensor.rows["finite"] = tensor.all_finite([*results.values(), *sums])
    carried = {name: value for name, value in results.items() if group_of(name) in CARRIED}
    tensor.rows.update((name, row) for name, row in results.items() if name not in carried)
    if phase.rows == "tensors":
        carried = {name: tensor.without_row(name, row) for name, row in carried.items()}
    return _next(carried)


def _next(values: Mapping[str, T]) -> dict[str, T]:
    return {f"next.{name}": value for name, value in values.items()}


def share_outputs(tensor: AbstractTensor[T]) -> dict[str, T]:
    """The tensor's terms of the sums over the network."""
    outputs: dict[str, T] = {}
    for phase in tensor.signature.share_phases:
        results = tensor.run(phase)
        if phase.reduce == "network":
            outputs.update((name, tensor.without_row(name, row)) for name, row in results.items())
        tensor.rows.update(results)
    return outputs
