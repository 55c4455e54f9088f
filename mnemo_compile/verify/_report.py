"""The report of a verification: an export computes what the cell computes, or it is not written."""

import pydantic

from ..errors import MnemoError
from ..frozen import AbstractDocument
from ._cases import SEGMENTS
from ._errors import NULL, NULL_BOUND

STEP_BOUND = 1e-5
"""Largest relative error of a phase and of a step."""
DRIFT_BOUND = 1e-3
"""Largest relative error of a parameter tensor after the trajectory."""
ROUNDED_STEP_BOUND = 1e-3
ROUNDED_DRIFT_BOUND = 1e-2
"""The same bounds for a cell that stores state in bfloat16, where a number that rounds the other way stays."""
STEPS = 100
"""Length of the run in which the optimizer knows the horizon."""
OPEN_STEPS = 30
"""Length of the second run, in which it does not know the horizon."""


class VerificationReport(AbstractDocument):
    """How far an export in float32 is from the cell in float64; the content of verification.json.

    Errors are ‖x − y‖ / ‖y‖, where y comes from the cell, to two digits.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    target: str
    name: str
    version: str
    digest: str
    """Digest of the cell."""
    precision: str = "float32"
    """Precision of the products of tiles in the export."""
    null_bound: float = NULL_BOUND
    """Largest singular value of a polar factor. In null directions, where the matrix is below `null` of its norm, this
    bound is all that is checked."""
    null: float = NULL
    truth: str = "float64"
    """Dtype of the cell that the export is compared with."""
    phases: dict[str, float]
    """For each phase the largest error of any output, over all regimes and numbers of rows."""
    step_error: float
    """The largest error that a step adds to a parameter tensor, over all steps, tensors and runs.

    It is ‖Δx − Δy‖ over the larger norm of y before and after the step.
    """
    drift: float
    """The largest error of a parameter tensor after the last step of a run."""
    regimes: tuple[str, ...] = tuple(dict.fromkeys(regime for regime, _ in SEGMENTS))
    """Regimes of the gradients."""
    rows: tuple[int, ...] = tuple(sorted({rows for _, rows in SEGMENTS}))
    """Numbers of rows at which phases were compared."""
    steps: int = STEPS
    """Length of the longest run."""
    step_bound: float = STEP_BOUND
    drift_bound: float = DRIFT_BOUND

    @property
    def passed(self) -> bool:
        """Whether every figure is within its bound."""
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """What is wrong, or None."""
        for name, error in self.phases.items():
            if not error <= STEP_BOUND:
                return f"its {name} is off by {error:.1e} where {STEP_BOUND:.0e} is allowed"
        if not self.step_error <= self.step_bound:
            return f"a step is off by {self.step_error:.1e} where {self.step_bound:.0e} is allowed"
        if not self.drift <= self.drift_bound:
            bound = f"{self.drift_bound:.0e} is allowed"
            return f"it has drifted by {self.drift:.1e} after {self.steps} steps where {bound}"
        return None

    def check(self, consequence: str) -> None:
        """Raises `MnemoError` if the verification failed."""
        if self.failure is not None:
            raise MnemoError(
                f"the {self.target} export does not compute what the cell computes: {self.failure}; {consequence}"
            )
