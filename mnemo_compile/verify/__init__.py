"""Verification: what every export is compared with, and the report of the comparison."""

from ._cases import (
    Case as Case,
    phase_cases as phase_cases,
    SCALES as SCALES,
    SEGMENTS as SEGMENTS,
    Trajectory as Trajectory,
    trajectory as trajectory,
)
from ._report import (
    AbstractArtifact as AbstractArtifact,
    AbstractRollout as AbstractRollout,
    DRIFT_BOUND as DRIFT_BOUND,
    Reference as Reference,
    ROUNDED_DRIFT_BOUND as ROUNDED_DRIFT_BOUND,
    ROUNDED_STEP_BOUND as ROUNDED_STEP_BOUND,
    STEP_BOUND as STEP_BOUND,
    STEPS as STEPS,
    trajectory_errors as trajectory_errors,
    VerificationReport as VerificationReport,
)
