"""How whole trainings respond to the prior's numbers, on `valid` and on the ladder's half for choosing.

python -m benchmarks.prior_search base --out search                     # the design: each number lower and higher
python -m benchmarks.prior_search base --out search --number steps.matrix=0.2,guard=0.3 --task decoder mlp-digits
python -m benchmarks.prior_search base --out search --show              # the table of what there is

`--number` takes other changes than the design's; what is joined by commas changes together. All trainings of a task
start alike and see the same batches. Results are kept as they come, so the same command goes on where it stopped;
`--part 0/2` and `--part 1/2` share the tasks between two processes.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mnemo_compile.cell import AbstractCell, cell_weights, with_weights
from mnemo_compile.meta import keep_compiled_programs, load_config
from mnemo_compile.meta.evaluation import load_suite
from mnemo_compile.meta.evaluation._baselines import TUNED
from mnemo_compile.meta.evaluation._cell_optimizer import as_optax
from mnemo_compile.meta.evaluation._figures import speedup
from mnemo_compile.meta.evaluation._store import read, shipped_path
from mnemo_compile.meta.evaluation._suites import TaskConfig
from mnemo_compile.meta.evaluation._training import BINS, run, starts
from mnemo_compile.meta.evaluation.ladder._law import best_run, ratio
from mnemo_compile.meta.evaluation.ladder._optimizers import of_cell
from mnemo_compile.meta.evaluation.ladder._rungs import load_ladder, Rung, select
from mnemo_compile.meta.evaluation.ladder._store import baseline_runs
from mnemo_compile.meta.evaluation.ladder._training import Run, Trainer
from mnemo_compile.meta.tasks import AbstractFamily
from mnemo_compile.step import describe, Role

CENTRE = "centre"
SEEDS = 3
"""Runs of a task of `valid`. A rung has a seed of its own."""
DESIGN: dict[str, tuple[Role, ...]] = {
    "steps.matrix=0.085": ("matrix",),
    "steps.matrix=0.34": ("matrix",),
    "steps.vector=0.006": ("vector",),
    "steps.vector=0.024": ("vector",),
    "steps.embedding=0.033": ("embedding",),
    "steps.embedding=0.132": ("embedding",),
    "steps.head=0.1": ("head",),
    "steps.head=0.4": ("head",),
    "steps.convolution=0.06": ("convolution",),
    "steps.convolution=0.24": ("convolution",),
    "small_start=1": ("matrix", "convolution", "head"),
    "small_start=4": ("matrix", "convolution", "head"),
    "small_from=0.2": ("matrix", "convolution", "head"),
    "small_from=0.8": ("matrix", "convolution", "head"),
    "large_start=0.25": ("matrix", "convolution", "head"),
    "nesterov=0.4": (),
    "nesterov=1": (),
    "guard=0.1": (),
    "guard=0.5": (),
    "warm_up=0.02": (),
    "warm_up=0.1": (),
    "last_step=0.001": (),
    "last_step=0.05": (),
}
"""Changes of the prior, and the roles of which a task must have one."""
STRUCTURE = ("tile", "annealing", "small_heads", "small_networks", "wide")
"""Settings of the prior that are no weights."""
LIMIT = 3.0
"""A figure beyond this factor either way counts as this."""


class Outcome(NamedTuple):
    """One training, or the mean over seeds."""

    curve: list[float]
    validation: float


class Problem(NamedTuple):
    """A task that a cell can be trained on. Cells of one structure share a compiled program."""

    name: str
    roles: frozenset[Role]
    train: Callable[[AbstractCell], Outcome]


def roles_of(family: AbstractFamily) -> frozenset[Role]:
    """The roles of a network's tensors."""
    return frozenset(describe(shape, name=name).role for shape, name in zip(family.shapes, family.names, strict=True))


def of_task(task: TaskConfig) -> Problem:
    """A task of a suite."""
    family, seeds = task.build(), range(SEEDS)
    names = family.names

    @functools.cache
    def started() -> Any:
        return starts(task, seeds)

    @eqx.filter_jit
    def trained(cell: AbstractCell, started: Any) -> tuple[Any, Any]:
        def one(seed: Any, start: Any) -> tuple[Any, Any]:
            params, instance = start
            done = run(family, as_optax(cell, task.steps, names), params, instance, seed, task.steps)
            return done.losses.reshape(BINS, -1).mean(axis=1), done.validation_losses.mean()

        curves, losses = jax.vmap(one)(jnp.asarray(seeds, jnp.uint32), started)
        return curves.mean(axis=0), losses.mean()

    def train(cell: AbstractCell) -> Outcome:
        curve, validation = trained(cell, started())
        return Outcome(np.asarray(curve, np.float64).tolist(), float(validation))

    return Problem(task.name, roles_of(family), train)


def of_rung(rung: Rung) -> Problem:
    """A rung of the ladder."""
    trainers: dict[str, Trainer] = {}

    def train(cell: AbstractCell) -> Outcome:
        weights, rest = eqx.partition(cell, eqx.is_array)
        if repr(rest) not in trainers:
            trainers[repr(rest)] = Trainer(rung, of_cell(cell, "", (1.0,)))
        trainer = trainers[repr(rest)]
        trainer.optimizer = trainer.optimizer._replace(weights=weights)
        done = trainer.run(1.0)
        numbers = [np.nan if value is None else value for value in [*done.curve, done.validation_loss]]
        return Outcome(numbers[:-1], numbers[-1])

    return Problem(rung.name, roles_of(rung.task.build()), train)


def problems(names: Sequence[str]) -> list[Problem]:
    """The tasks that may be used to choose; of these, those with the names, if there are any."""
    rungs = [rung for rung in select(load_ladder(), "choose") if not names or rung.name in names]
    tasks = [task for task in load_suite("valid").tasks if not names or task.name in names]
    return [*map(of_rung, rungs), *map(of_task, tasks)]


def cell_of(preset: str, change: str) -> AbstractCell:
    """The preset with other numbers in its prior. What differs in weights alone shares a program."""
    overrides = () if change == CENTRE else tuple(f"cell.prior.{each}" for each in change.split(","))
    structure = tuple(each for each in overrides if each.split("=")[0].removeprefix("cell.prior.") in STRUCTURE)
    weights = cell_weights(load_config(preset, overrides).cell.build())
    return with_weights(load_config(preset, structure).cell.build(), weights)


class Store:
    """Results in files of one line each."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[tuple[str, str], Outcome]:
        """By task and change."""
        rows = [json.loads(line) for path in sorted(self.folder.glob("*.jsonl")) for line in path.open()]
        return {(row["task"], row["change"]): Outcome(row["curve"], row["validation"]) for row in rows}

    def keep(self, part: int, task: str, change: str, outcome: Outcome) -> None:
        """Adds a result."""
        with (self.folder / f"part-{part}.jsonl").open("a") as file:
            file.write(json.dumps({"task": task, "change": change, **outcome._asdict()}) + "\n")


def gain_on_task(theirs: np.ndarray, ours: Outcome) -> float:
    """Logarithm of the speedup over tuned AdamW."""
    curve = np.nan_to_num(np.array(ours.curve), nan=np.inf)
    return float(np.log(np.clip(speedup(curve, theirs), 1 / LIMIT, LIMIT)))


def gain_on_rung(rung: Rung, baselines: Sequence[Run], ours: Outcome) -> float:
    """Logarithm of the better baseline's result over ours."""
    is_finite = bool(np.isfinite(ours.curve).all())
    outcome = Run(
        setting=1.0,
        curve=list(ours.curve),
        initial=ours.curve[0],
        highest=max(ours.curve) if is_finite else None,
        validation_loss=ours.validation if np.isfinite(ours.validation) else None,
        accuracy=None,
        seconds=0,
    )
    worst = max(ratio(outcome, baseline, rung.is_text) for baseline in baselines) if is_finite else LIMIT
    return -float(np.log(np.clip(worst, 1 / LIMIT, LIMIT)))


def judges() -> dict[str, Callable[[Outcome], float]]:
    """For each task, how much better than the baselines a training is."""
    ladder, found = load_ladder(), {}
    for name, stored in read(shipped_path("valid")).items():
        theirs = stored.baselines[TUNED].runs.curves[:SEEDS].mean(axis=0)
        found[name] = functools.partial(gain_on_task, theirs)
    for rung in select(ladder, "choose"):
        best = [best_run(runs, rung.is_text) for runs in baseline_runs(ladder, rung).values()]
        found[rung.name] = functools.partial(gain_on_rung, rung, best)
    return found


def show(found: dict[tuple[str, str], Outcome]) -> None:
    """Prints what the preset gains over the baselines, and what each change gains on the tasks that have both."""
    gain_of, rungs = judges(), {rung.name for rung in load_ladder().rungs}
    gains = {key: gain_of[key[0]](outcome) for key, outcome in found.items()}
    for task in dict.fromkeys(task for task, _ in gains):
        print(f"{task:32}{np.exp(gains[task, CENTRE]):7.3f}")
    print(f"{'change':32}{'tasks':>6}{'valid':>16}{'ladder':>16}   most lost, most gained")
    for change in dict.fromkeys(change for _, change in found if change != CENTRE):
        tasks = [task for task, made in gains if made == change]
        columns = []
        for is_rung in (False, True):
            of = [task for task in tasks if (task in rungs) == is_rung]
            each = [float(np.exp(np.mean([gains[task, made] for task in of]))) for made in (CENTRE, change) if of]
            columns.append(f"{each[0]:8.3f}{each[1]:8.3f}" if of else " " * 16)
        apart = {task: gains[task, change] - gains[task, CENTRE] for task in tasks}
        order = sorted(tasks, key=lambda task: apart[task])
        ends = ", ".join(f"{task} {np.exp(apart[task]):.2f}" for task in dict.fromkeys((*order[:4], *order[-3:])))
        print(f"{change:32}{len(tasks):6}{''.join(columns)}   {ends}")


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--number", nargs="+", default=[], help="changes in place of the design's")
    parser.add_argument("--task", nargs="+", default=[], help="only these tasks and rungs")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--show", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    store = Store(arguments.out)
    if not arguments.show:
        keep_compiled_programs()
        part, parts = map(int, arguments.part.split("/"))
        asked: dict[str, tuple[Role, ...]] = {change: () for change in arguments.number} or DESIGN
        for problem in problems(arguments.task)[part::parts]:
            done = store.read()
            for change, roles in {CENTRE: (), **asked}.items():
                if (problem.name, change) in done or (roles and not problem.roles.intersection(roles)):
                    continue
                outcome = problem.train(cell_of(arguments.preset, change))
                store.keep(part, problem.name, change, outcome)
                print(f"{problem.name} {change}: {outcome.curve[-1]:.4g} {outcome.validation:.4g}", flush=True)
    show(store.read())


if __name__ == "__main__":
    main()
