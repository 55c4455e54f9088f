"""`python -m mnemo_compile.meta.evaluation SUITE` measures the baselines that have no current results."""

import argparse
import sys
import time

from .._programs import keep_compiled_programs
from ._baselines import BASELINES
from ._store import cached_path, current, keep, shipped_path
from ._suites import load_suite, suites
from ._tuning import tune


def main() -> None:
    """Measures what is missing, and keeps it after each baseline."""
    parser = argparse.ArgumentParser(prog="python -m mnemo_compile.meta.evaluation", description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("--baseline", action="append", choices=sorted(BASELINES), help="only this one; repeatable")
    parser.add_argument("--task", action="append", help="only this one; repeatable")
    parser.add_argument("--seeds", type=int, help="number of runs; by default each task's own")
    arguments = parser.parse_args()
    keep_compiled_programs()
    suite = load_suite(arguments.suite)
    path = shipped_path(suite.name) if suite.ref in suites() else cached_path(suite.name)
    for task in suite.tasks:
        if arguments.task and task.name not in arguments.task:
            continue
        seeds = arguments.seeds or task.seeds
        for name in arguments.baseline or BASELINES:
            # Read again each time, since several of these processes may work on one suite.
            result = current(suite.name, task).get(name)
            if result is not None and len(result.seeds) >= seeds:
                continue
            began = time.monotonic()
            result = tune(task, BASELINES[name], range(seeds))
            outcome = f"{result.final.mean():.4g} at {result.rate:g} {result.schedule}"
            print(f"{task.name} {name}: {outcome} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            keep(suite.name, task, {name: result}, path)


if __name__ == "__main__":
    main()
