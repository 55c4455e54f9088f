"""`python -m mnemo_compile.meta.evaluation.ladder` trains the baselines that have no current results on a ladder."""

import argparse
import math

from ... import keep_compiled_programs
from . import _store
from ._ladder import measure
from ._optimizers import BASELINES
from ._rungs import CHOICES, LADDER, load_ladder, select


def main() -> None:
    """Measures what is missing, and keeps it after each training."""
    parser = argparse.ArgumentParser(prog="python -m mnemo_compile.meta.evaluation.ladder", description=__doc__)
    parser.add_argument("ladder", nargs="?", default=LADDER, help="name, or path of a TOML file")
    parser.add_argument("--rungs", choices=CHOICES, default="all")
    parser.add_argument("--rung", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--baseline", action="append", choices=sorted(BASELINES), help="only this one; repeatable")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training that would end later")
    parser.add_argument("--in-cache", action="store_true", help="keep results in the cache folder, not in the package")
    arguments = parser.parse_args()
    keep_compiled_programs()
    ladder = load_ladder(arguments.ladder, arguments.rungs)
    rungs = select(ladder, arguments.rungs, arguments.rung)
    path = _store.baselines_path(ladder, arguments.in_cache)
    for name in arguments.baseline or BASELINES:
        for _ in measure(path, rungs, BASELINES[name], arguments.minutes):
            pass


if __name__ == "__main__":
    main()
