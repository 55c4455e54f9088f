"""What the cell of each preset costs: bytes of state, operations, and the time of a step in JAX beside optax.adamw.

python -m benchmarks.presets                       # all presets, over 10 million parameters
python -m benchmarks.presets super compact --steps 9

The cells are untrained; meta-training does not change their cost. Each runs in a process of its own: its exported
transformation, jitted with donated parameters and state, takes turns with `optax.adamw` on the same arrays.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from .step import Shapes, vision_transformer

SHAPES = vision_transformer(width=384, depth=5, patch=16, classes=1000)
"""A small Vision Transformer of 10 million parameters."""


def stepper(transformation: Any, shapes: Shapes) -> Callable[[], None]:
    """The compiled step of a transformation."""
    import jax
    import numpy as np
    import optax

    random = np.random.default_rng(0)
    params, grads = (
        [jax.numpy.asarray(scale * random.standard_normal(shape, np.float32)) for shape in shapes]
        for scale in (0.02, 1e-3)
    )
    state = transformation.init(params)

    def advance(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(advance, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(jitted(params, state, grads))

    step()
    return step


def seconds(step: Callable[[], None]) -> float:
    """The time of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(preset: str, steps: int) -> dict[str, Any]:
    """The figures of a preset, measured in this process."""
    import optax

    import mnemo_compile as mnemo
    from mnemo_compile.cli._inspect import describe
    from mnemo_compile.meta import load_config

    frozen = mnemo.freeze(load_config(preset).cell.build(), name=preset, version="0.0.0")
    description = describe(frozen)
    ours, theirs = stepper(mnemo.to_optax(frozen)(), SHAPES), stepper(optax.adamw(1e-3), SHAPES)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(steps)]
    return {
        "preset": preset,
        "bytes": description["state_bytes_per_parameter"],
        "operations": description["operations_per_coordinate"][1],
        "tiled": description["operations_per_tiled_coordinate"][1] if description["tile"] else None,
        "milliseconds": 1e3 * statistics.median(mine for mine, _ in pairs),
        "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
    }


def main() -> None:
    from mnemo_compile.cli._inspect import by_role
    from mnemo_compile.meta import presets

    parser = argparse.ArgumentParser(description="What the cell of each preset costs.")
    parser.add_argument("presets", nargs="*", default=list(presets()))
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--here", action="store_true", help="measure the one preset in this process")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.presets[0], arguments.steps)))
        return
    print(f"{sum(map(math.prod, SHAPES)):,} parameters in {len(SHAPES)} tensors\n")
    print("| preset | bytes of state per parameter | operations per coordinate | in tiles | ms per step | over AdamW |")
    print("|---|---|---|---|---|---|", flush=True)
    for preset in arguments.presets:
        command = [sys.executable, "-m", __spec__.name, preset, "--here", "--steps", str(arguments.steps)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        tiled = "–" if result["tiled"] is None else f"{result['tiled']:.0f}"
        print(
            f"| `{preset}` | {by_role(result['bytes'])} | {result['operations']:.0f} | {tiled} | "
            f"{result['milliseconds']:.0f} | {result['ratio']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
