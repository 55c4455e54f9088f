"""Tuning a baseline over its grid."""

import numpy as np

from mnemo_compile.meta.evaluation import TaskConfig
from mnemo_compile.meta.evaluation._baselines import BASELINES
from mnemo_compile.meta.evaluation._tuning import FINALISTS, tune


def test_tuning_takes_the_best_point_of_the_grid(line: TaskConfig) -> None:
    adamw = BASELINES["adamw"]
    result = tune(line, adamw, [0, 1])
    full = [point for point in result.grid if len(point.final) == 2]
    assert len(full) == FINALISTS and len(result.grid) == 22
    best = min(full, key=lambda point: float(np.mean([value for value in point.final if value is not None])))
    assert (result.rate, result.schedule) == (best.rate, best.schedule)
    np.testing.assert_allclose(result.final, np.array(best.final, np.float64), rtol=1e-3)
    # Rates that hardly move end where they began.
    assert result.grid[0].final[0] is not None and result.grid[0].final[0] > 2 * result.final.mean()
    # It speaks of this baseline, and of no other grid and no other options.
    assert result.is_of(adamw)
    assert not result.is_of(adamw._replace(grid=adamw.grid[1:]))
    assert not result.is_of(adamw._replace(options="weight_decay=0.1"))
