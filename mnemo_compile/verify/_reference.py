"""What a cell computes in float64, and how far an export is from it."""

import numpy as np

from ..cell import AbstractCell
from ..errors import MnemoError
from ..frozen import FrozenCell
from ..program import CompiledCell
from ._cases import Case, phase_cases
from ._errors import distance, polar_error, relative_error, unflipped, wide, worst
from ._interface import AbstractExport
from ._report import (
    DRIFT_BOUND,
    OPEN_STEPS,
    ROUNDED_DRIFT_BOUND,
    ROUNDED_STEP_BOUND,
    STEP_BOUND,
    STEPS,
    VerificationReport,
)
from ._trajectory import Trajectory, trajectory


class Reference:
    """A cell and what it computes in float64, once for all the targets that are compared with it.

    **Arguments:**

    - `cell`: the cell.
    - `compiled`: the programs that the targets were made from. Only their outputs are compared.
    - `seed`: seed of inputs, parameters and gradients.
    - `steps`: length of the run in which the optimizer knows the horizon.
    """

    def __init__(self, cell: AbstractCell, compiled: CompiledCell, *, seed: int = 0, steps: int = STEPS):
        random = np.random.default_rng(seed)
        self.rounded = {f"memory.{slot.name}" for slot in compiled.memory_slots if slot.dtype == "bfloat16"}
        """Outputs that are rounded to bfloat16."""
        self.cases = phase_cases(cell, compiled, random)
        self.trajectory = trajectory(cell, random, steps, total_steps=STEPS, kinds=14)
        self.open_trajectory = trajectory(cell, random, min(steps, OPEN_STEPS), total_steps=None, kinds=2)

    def compare(self, target: str, frozen: FrozenCell, export: AbstractExport) -> VerificationReport:
        """Runs the phases and the steps of an export and measures how far they are from the cell."""
        step_error, drift = self.run_errors(export)
        return VerificationReport(
            target=target,
            name=frozen.name,
            version=frozen.version,
            digest=frozen.digest,
            phases={name: _rounded(error) for name, error in self.phase_errors(export, target).items()},
            step_error=_rounded(step_error),
            drift=_rounded(drift),
            steps=len(self.trajectory.grads),
            step_bound=ROUNDED_STEP_BOUND if self.rounded else STEP_BOUND,
            drift_bound=ROUNDED_DRIFT_BOUND if self.rounded else DRIFT_BOUND,
        )

    def phase_errors(self, export: AbstractExport, target: str = "") -> dict[str, float]:
        """For each phase the largest error of any output in any case."""
        phases: dict[str, float] = {}
        for case in self.cases:
            for form in export.forms(case.phase):
                some = case.first(export.most_rows(form))
                outputs = export.phase(form, some.inputs)
                missing = sorted(case.outputs[0].keys() - outputs.keys())
                if missing:
                    raise MnemoError(f"the {target} export's {form} lacks the output {missing[0]}")
                errors = [
                    min(self._error_of(some, key, outputs[key], place) for place in range(len(case.outputs)))
                    for key in case.outputs[0]
                ]
                phases[form] = worst([phases.get(form, 0.0), *errors])
        return phases

    def _error_of(self, case: Case, name: str, values: np.ndarray, place: int) -> float:
        """The error of an output beside one of the right outputs."""
        expected = case.outputs[place][name]
        if case.matrices is not None:
            return polar_error(values, expected, case.matrices[place], np.sqrt(case.inputs["tile.side"]))
        if name in self.rounded:
            values = unflipped(values, expected)
        return relative_error(values, expected)

    def run_errors(self, export: AbstractExport) -> tuple[float, float]:
        """The largest error that one step adds, and the largest after the last step, over both runs."""
        errors = [trajectory_errors(export, history) for history in (self.trajectory, self.open_trajectory)]
        return max(step for step, _ in errors), max(drift for _, drift in errors)


def trajectory_errors(export: AbstractExport, history: Trajectory) -> tuple[float, float]:
    """The largest error that one step adds to a parameter tensor, and the largest of a tensor after the last step.

    What a step adds is relative to the tensor before or after it, whichever is larger. A step that takes nearly all of
    a number off leaves the rounding of what was there before.
    """
    rollout = export.start(history.params, **history.options)
    before = true_before = list(history.params.values())
    added: list[float] = [0.0]
    for grads, true_after in zip(history.grads, history.results, strict=True):
        after = rollout.step(grads)
        added.extend(
            distance(wide(new) - old - (true_new - true_old), max(true_new, true_old, key=np.linalg.norm))
            for new, old, true_new, true_old in zip(after, before, true_after, true_before, strict=True)
        )
        before, true_before = after, true_after
    drift = worst([relative_error(x, y) for x, y in zip(before, true_before, strict=True)])
    return worst(added), drift


def _rounded(error: float) -> float:
    return float(f"{error:.1e}")
