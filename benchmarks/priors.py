"""How good a cell is before it has learned anything, at several multiples of its step (`lr`), beside tuned AdamW.

python -m benchmarks.priors base                                       # the preset's cell as it is, on valid
python -m benchmarks.priors base --set cell.prior.nesterov=0 --lr 1 2 3  # another prior
python -m benchmarks.priors runs/base/bundle --lr 0.5 1 2              # a meta-trained cell
python -m benchmarks.priors mnemosyne-tiny --set cell.prior.tile=64     # its weights under another prior

It finds priors that are worth meta-training; docs/experiments.md has the results. `--task` names the tasks, and
`--skip` leaves some out. `--out FOLDER` only writes the cell under that prior, as a bundle to publish.
"""

import argparse
import pathlib

import numpy as np

import mnemo_compile as mnemo
from mnemo_compile.cell import AbstractCell, cell_config, with_weights
from mnemo_compile.frozen import Training
from mnemo_compile.meta import load_config, presets
from mnemo_compile.meta._load import set_key
from mnemo_compile.meta.evaluation import load_suite
from mnemo_compile.meta.evaluation._baselines import TUNED
from mnemo_compile.meta.evaluation._cell_optimizer import as_optax
from mnemo_compile.meta.evaluation._evaluate import baseline_results
from mnemo_compile.meta.evaluation._figures import geometric_mean, Pair, speedup_of, validation_of
from mnemo_compile.meta.evaluation._training import train


def is_configuration(name: str) -> bool:
    """Whether it names a preset or a TOML file, and not a meta-trained cell."""
    return name in presets() or pathlib.Path(name).suffix == ".toml"


def cell_of(name: str, overrides: tuple[str, ...]) -> AbstractCell:
    """The untrained cell of a preset or a TOML file, or a bundle or an entry of the zoo; with other settings."""
    if is_configuration(name):
        return load_config(name, overrides).cell.build()
    frozen = mnemo.load(name)
    data = {"cell": frozen.config.model_dump()}
    for override in overrides:
        set_key(data, override)
    return with_weights(cell_config(data["cell"]).build(), frozen.weights)


def keep(cell: AbstractCell, name: str, overrides: tuple[str, ...], folder: pathlib.Path) -> None:
    """Writes a cell under a prior; its manifest names the commands that made it."""
    settings = "".join(f" --set {override}" for override in overrides)
    if is_configuration(name):
        preset = pathlib.Path(name).stem
        command = f"python -m benchmarks.priors {name}{settings} --out FOLDER"
        training = Training(command=command, preset=preset, seed=0, meta_steps=0, minutes=0.0, families=(), figures={})
        frozen = mnemo.freeze(cell, name=f"{cell.config.kind}-{preset}", version="0.0.0", training=training)
    else:
        manifest = mnemo.load(name).manifest
        then = f"python -m benchmarks.priors RUN/bundle{settings} --out FOLDER"
        training = manifest.training.model_copy(update={"command": f"{manifest.training.command}; {then}"})
        frozen = mnemo.freeze(cell, name=manifest.name, version=manifest.version, training=training)
    mnemo.save(frozen, folder)


def main() -> None:
    """Prints one row per task: speedup, training loss over tuned AdamW's, and validation loss relative to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", help="a preset, a TOML file, or what `mnemo eval` takes")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="key=value, as for meta-train")
    parser.add_argument("--lr", type=float, nargs="+", default=[1.0])
    parser.add_argument("--suite", default="valid")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--task", nargs="*", default=[], help="only these")
    parser.add_argument("--skip", nargs="*", default=[], help="tasks to leave out")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the cell under this prior")
    arguments = parser.parse_args()
    overrides = tuple(arguments.overrides)
    cell = cell_of(arguments.cell, overrides)
    if arguments.out is not None:
        keep(cell, arguments.cell, overrides, arguments.out)
        return
    suite, seeds, factors = load_suite(arguments.suite), arguments.seeds, arguments.lr
    pairs: dict[float, list[Pair]] = {factor: [] for factor in factors}
    print(f"{'lr':24}" + "".join(f"{factor:>22g}" for factor in factors))
    for task in suite.tasks:
        if task.name in arguments.skip or (arguments.task and task.name not in arguments.task):
            continue
        theirs = baseline_results(suite, task, seeds)[TUNED].runs.rows(slice(seeds))
        settings = np.repeat(np.array(factors, np.float32), seeds)
        names = task.build().names
        which = list(range(seeds)) * len(factors)
        runs = train(task, lambda lr, steps, names=names: as_optax(cell, steps, names, lr), settings, which)
        cells = []
        for place, factor in enumerate(factors):
            ours = runs.rows(slice(place * seeds, (place + 1) * seeds))
            pair = Pair(ours, theirs)
            pairs[factor].append(pair)
            ratio = ours.final.mean() / theirs.final.mean()
            cells.append(f"{speedup_of(pair):6.2f} {ratio:7.2f} {validation_of(pair):+7.0%}")
        print(f"{task.name:24}" + "".join(cells), flush=True)
    means = [geometric_mean([speedup_of(pair) for pair in pairs[factor]]) for factor in factors]
    validation = [float(np.mean([validation_of(pair) for pair in pairs[factor]])) for factor in factors]
    cells = (f"{mean:6.2f}{'':8}{difference:+7.0%}" for mean, difference in zip(means, validation, strict=True))
    print(f"{'mean':24}" + "".join(cells))


if __name__ == "__main__":
    main()
