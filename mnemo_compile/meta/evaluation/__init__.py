"""Evaluating optimizers: suites of tasks, baselines tuned for each of them, and figures of a comparison."""

from ._evaluate import evaluate as evaluate, evaluate_all as evaluate_all
from ._evaluation import (
    BaselineComparison as BaselineComparison,
    Evaluation as Evaluation,
    GroupEvaluation as GroupEvaluation,
    TaskEvaluation as TaskEvaluation,
)
from ._figures import Interval as Interval
from ._report import (
    as_data as as_data,
    BASELINE_COLUMNS as BASELINE_COLUMNS,
    baseline_rows as baseline_rows,
    beaten as beaten,
    COLUMNS as COLUMNS,
    figures as figures,
    GROUP_COLUMNS as GROUP_COLUMNS,
    group_rows as group_rows,
    rows as rows,
    write_report as write_report,
)
from ._suites import load_suite as load_suite, Suite as Suite, suites as suites, TaskConfig as TaskConfig
