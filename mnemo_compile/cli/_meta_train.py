"""`mnemo meta-train`."""

import math
import pathlib

import rich_click as click

from ..errors import UsageError


@click.command("meta-train")
@click.argument("preset", metavar="PRESET|CONFIG.toml")
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path), metavar="RUN", help="The run's folder.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to meta-train.")
@click.option("--steps", type=click.IntRange(min=1), help="How many meta-steps to take, instead of --minutes.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of weights and tasks.")
@click.option("--resume", is_flag=True, help="Go on where the run in RUN stopped.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the preset. Repeatable.")
def meta_train(
    preset: str,
    out: pathlib.Path,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    resume: bool,
    overrides: tuple[str, ...],
) -> None:
    """Meta-train a cell on tasks drawn afresh, and freeze it.

    RUN gets checkpoints, metrics, a curve and, at the end, the bundle. Ctrl-C saves; --resume goes on.

    \b
    Example:
      mnemo meta-train tiny --out runs/first --minutes 5
    """
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps both say when to stop; give one of them")
    if minutes is not None and not math.isfinite(minutes):
        raise UsageError(f"--minutes takes a finite number, not {minutes}; Ctrl-C ends a run at any time")
    for override in overrides:
        if not override.partition("=")[0].strip() or "=" not in override:
            raise UsageError(f"--set takes KEY=VALUE, not '{override}'")
    from ..meta import meta_train

    meta_train(preset, out, minutes=minutes, steps=steps, seed=seed, resume=resume, overrides=overrides)
