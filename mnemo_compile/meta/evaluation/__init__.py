"""Judging optimizers: suites of tasks, opponents tuned for each of them, and figures of a comparison."""

from ._evaluate import (
    evaluate as evaluate,
    Judgement as Judgement,
    OpponentJudgement as OpponentJudgement,
    TaskJudgement as TaskJudgement,
)
from ._judgement import Interval as Interval
from ._report import (
    as_data as as_data,
    beaten as beaten,
    COLUMNS as COLUMNS,
    figures as figures,
    OPPONENT_COLUMNS as OPPONENT_COLUMNS,
    opponent_rows as opponent_rows,
    rows as rows,
    write_report as write_report,
)
from ._suites import load_suite as load_suite, Suite as Suite, suites as suites, TaskConfig as TaskConfig
