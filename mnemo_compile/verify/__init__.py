"""Verification: compares an export with the cell in float64 and reports the errors."""

from ._cases import SEGMENTS as SEGMENTS
from ._interface import AbstractExport as AbstractExport, AbstractRollout as AbstractRollout
from ._reference import Reference as Reference, trajectory_errors as trajectory_errors
from ._regimes import SCALES as SCALES
from ._report import (
    DRIFT_BOUND as DRIFT_BOUND,
    ROUNDED_DRIFT_BOUND as ROUNDED_DRIFT_BOUND,
    ROUNDED_STEP_BOUND as ROUNDED_STEP_BOUND,
    STEP_BOUND as STEP_BOUND,
    STEPS as STEPS,
    VerificationReport as VerificationReport,
)
from ._wide import FEW_RUNS as FEW_RUNS
