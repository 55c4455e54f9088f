"""`python -m mnemo_compile.meta.evaluation SUITE` measures the opponents that have no baseline of today's code."""

import argparse
import sys
import time

from ._baselines import cached_path, current, keep, measure, path_of
from ._opponents import OPPONENTS
from ._suites import load_suite, suites


def main() -> None:
    """Measures what is missing, and keeps it task by task."""
    parser = argparse.ArgumentParser(prog="python -m mnemo_compile.meta.evaluation", description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("--opponent", action="append", choices=sorted(OPPONENTS), help="only this one; repeatable")
    parser.add_argument("--task", action="append", help="only this one; repeatable")
    parser.add_argument("--seeds", type=int, help="runs; by default as many as the suite says of each task")
    parser.add_argument(
        "--anew",
        action="store_true",
        help="measure also what has a baseline, for data that differ from those it was measured on",
    )
    arguments = parser.parse_args()
    suite = load_suite(arguments.suite)
    kept_in = path_of(suite.name) if suite.ref in suites() else cached_path(suite.name)
    for task in suite.tasks:
        if arguments.task and task.name not in arguments.task:
            continue
        seeds = arguments.seeds or task.seeds
        for name in arguments.opponent or OPPONENTS:
            # Read again each time: several of these may be at work on one suite.
            known = current(suite.name, task).get(name)
            if known is not None and len(known.seeds) >= seeds and not arguments.anew:
                continue
            began = time.monotonic()
            result = measure(task, OPPONENTS[name], range(seeds))
            said = f"{result.final.mean():.4g} at {result.rate:g} {result.schedule}"
            print(f"{task.name} {name}: {said} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            keep(suite.name, task, {name: result}, kept_in)


if __name__ == "__main__":
    main()
