"""The inner loop: trainings of tasks by the cell, a truncation at a time."""

from ._augmentation import Augmentation as Augmentation
from ._imitation import ImitationLoop as ImitationLoop, ImitationState as ImitationState
from ._interface import AbstractInnerLoop as AbstractInnerLoop, State as State, Weights as Weights
from ._loop import InnerLoop as InnerLoop
from ._objective import meta_objective as meta_objective
from ._state import InnerState as InnerState, Observation as Observation
