"""What verification needs of an exported optimizer."""

import abc
from collections.abc import Mapping, Sequence

import numpy as np


class AbstractRollout(abc.ABC):
    """A training run in a target's own optimizer."""

    @abc.abstractmethod
    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Takes a step and returns the parameters after it."""


class AbstractExport(abc.ABC):
    """An exported optimizer, loaded."""

    @abc.abstractmethod
    def forms(self, name: str) -> tuple[str, ...]:
        """The names of an export's functions for a phase. There may be a second one in a form for a compiler."""

    @abc.abstractmethod
    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a form of a phase. Inputs that the export does not need are ignored."""

    def most_rows(self, name: str) -> int | None:
        """How many rows of a case a form is compared at, None for all. A form that is slow to run has a limit."""
        return None

    @abc.abstractmethod
    def start(
        self, params: Mapping[str, np.ndarray], *, lr: float, weight_decay: float, total_steps: int | None
    ) -> AbstractRollout:
        """A run that starts from these parameters, through the public interface. Their names tell roles."""
