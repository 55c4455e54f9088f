"""The ladder: does one step size hold over widths, depths, horizons, batches and initialisations?"""

from ._ladder import (
    BaselineResult as BaselineResult,
    evaluate_ladder as evaluate_ladder,
    LadderEvaluation as LadderEvaluation,
    RungEvaluation as RungEvaluation,
)
from ._law import Verdict as Verdict
from ._optimizers import MULTIPLIERS as MULTIPLIERS
from ._report import (
    as_data as as_data,
    COLUMNS as COLUMNS,
    figures as figures,
    rows as rows,
    write_report as write_report,
)
from ._rungs import (
    CHOICES as CHOICES,
    is_ladder as is_ladder,
    LADDER as LADDER,
    Ladder as Ladder,
    LARGE as LARGE,
    load_ladder as load_ladder,
    Options as Options,
    Rung as Rung,
)
