"""How good a cell is before it has learned anything, at several factors of its step (`lr`), beside tuned AdamW.

python -m benchmarks.priors base                                       # the preset's cell as it is, on valid
python -m benchmarks.priors base --set cell.nesterov=0 --lr 1 2 3      # another prior
python -m benchmarks.priors runs/base/bundle --lr 0.5 1 2              # a meta-trained cell, in the same way
python -m benchmarks.priors mnemosyne-base@0.1.0 --set cell.reference_matrices=6  # its weights under another prior

For finding priors that are worth meta-training; docs/experiments.md says what was found. `--task` names the tasks, and
`--skip` leaves some out. `--out FOLDER` keeps the cell under that prior, as a bundle to publish.
"""

import argparse
import pathlib

import numpy as np

import mnemo_compile as mnemo
from mnemo_compile.cell import AbstractCell, cell_config, with_weights
from mnemo_compile.meta import load_config, presets
from mnemo_compile.meta._config import set_key
from mnemo_compile.meta.evaluation import load_suite
from mnemo_compile.meta.evaluation._evaluate import baselines, TUNED
from mnemo_compile.meta.evaluation._judgement import geometric_mean, held_out_of, Pair, speedup_of
from mnemo_compile.meta.evaluation._training import as_optax, Runs, train


def is_configuration(name: str) -> bool:
    """Whether it names a preset or a TOML file, and no meta-trained cell."""
    return name in presets() or pathlib.Path(name).suffix == ".toml"


def cell_of(name: str, overrides: tuple[str, ...]) -> AbstractCell:
    """Of a preset or a TOML file, untrained, or of a bundle or an entry of the zoo; with other settings."""
    if is_configuration(name):
        return load_config(name, overrides).cell.build()
    frozen = mnemo.load(name)
    data = {"cell": frozen.config.model_dump()}
    for override in overrides:
        set_key(data, override)
    return with_weights(cell_config(data["cell"]).build(), frozen.weights)


def keep(cell: AbstractCell, name: str, overrides: tuple[str, ...], folder: pathlib.Path) -> None:
    """Writes a meta-trained cell under another prior; its manifest says what it was made by."""
    manifest = mnemo.load(name).manifest
    settings = " ".join(f"--set {override}" for override in overrides)
    then = f"python -m benchmarks.priors RUN/bundle {settings} --out FOLDER"
    training = manifest.training.model_copy(update={"command": f"{manifest.training.command}; {then}"})
    mnemo.save(mnemo.freeze(cell, name=manifest.name, version=manifest.version, training=training), folder)


def main() -> None:
    """Prints a row a task, with speedup, training loss over tuned AdamW's, and validation loss relative to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", help="a preset, a TOML file, or what `mnemo eval` takes")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="key=value, as of meta-train")
    parser.add_argument("--lr", type=float, nargs="+", default=[1.0])
    parser.add_argument("--suite", default="valid")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--task", nargs="*", default=[], help="only these")
    parser.add_argument("--skip", nargs="*", default=[], help="tasks to leave out")
    parser.add_argument("--out", type=pathlib.Path, help="where to keep the cell under this prior")
    arguments = parser.parse_args()
    if arguments.out is not None and is_configuration(arguments.cell):
        parser.error(f"--out keeps a meta-trained cell, and {arguments.cell} is a configuration; name a bundle")
    overrides = tuple(arguments.overrides)
    cell = cell_of(arguments.cell, overrides)
    if arguments.out is not None:
        keep(cell, arguments.cell, overrides, arguments.out)
    suite, seeds, factors = load_suite(arguments.suite), arguments.seeds, arguments.lr
    pairs: dict[float, list[Pair]] = {factor: [] for factor in factors}
    print(f"{'lr':24}" + "".join(f"{factor:>22g}" for factor in factors))
    for task in suite.tasks:
        if task.name in arguments.skip or (arguments.task and task.name not in arguments.task):
            continue
        theirs = Runs(*(rows[:seeds] for rows in baselines(suite, task, seeds)[TUNED].runs))
        settings = np.repeat(np.array(factors, np.float32), seeds)
        runs = train(task, lambda lr, steps: as_optax(cell, steps, lr), settings, list(range(seeds)) * len(factors))
        cells = []
        for place, factor in enumerate(factors):
            ours = Runs(*(rows[place * seeds : (place + 1) * seeds] for rows in runs))
            pair = Pair(ours, theirs)
            pairs[factor].append(pair)
            ratio = ours.final.mean() / theirs.final.mean()
            cells.append(f"{speedup_of(pair):6.2f} {ratio:7.2f} {held_out_of(pair):+7.0%}")
        print(f"{task.name:24}" + "".join(cells), flush=True)
    means = [geometric_mean([speedup_of(pair) for pair in pairs[factor]]) for factor in factors]
    held_out = [float(np.mean([held_out_of(pair) for pair in pairs[factor]])) for factor in factors]
    cells = (f"{mean:6.2f}{'':8}{difference:+7.0%}" for mean, difference in zip(means, held_out, strict=True))
    print(f"{'mean':24}" + "".join(cells))


if __name__ == "__main__":
    main()
