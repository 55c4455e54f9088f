"""Time and memory of one step of each export beside torch.optim.AdamW, over the tensors of a Vision Transformer.

python benchmarks/step.py                                         # ViT-B/16, 86.6 million parameters
python benchmarks/step.py --width 192 --depth 12 --targets torch optax

Every target runs in a process of its own, in which AdamW (foreach) takes its steps in turn with the target's, on
tensors of the same shapes. `extra` is what a step adds to the resident memory at its peak, over parameters, gradients,
state and what the libraries hold before it.

With `--device` it measures steps on a GPU beside AdamW and Muon, which is step_gpu.py beside this file:

python -m benchmarks.step --device cuda --minutes 4
python -m benchmarks.step --device cuda --help
"""

import argparse
import ctypes
import json
import math
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Shapes = list[tuple[int, ...]]
Step = Callable[[], Any]


def vision_transformer(width: int, depth: int, patch: int, classes: int) -> Shapes:
    """Shapes of its parameter tensors."""
    places = (224 // patch) ** 2 + 1
    block = [
        (width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,),
        (width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,),
    ]  # fmt: skip
    ends = [(1, 1, width), (1, places, width), (width, 3, patch, patch), (width,), (width,), (width,)]
    return [*ends, *(block * depth), (classes, width), (classes,)]


def adamw_step(shapes: Shapes) -> Step:
    import torch

    params = _torch_params(shapes)
    return torch.optim.AdamW(params, foreach=True).step


def torch_step(ref: str, shapes: Shapes, backend: str) -> Step:
    import mnemo_compile as mnemo

    make = mnemo.to_torch(ref)
    return make(_torch_params(shapes), backend=backend).step


def _torch_params(shapes: Shapes) -> list[Any]:
    import torch

    params = [torch.nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes]
    for param in params:
        param.grad = 1e-3 * torch.randn_like(param)
    return params


def _arrays(shapes: Shapes) -> tuple[list[Any], list[Any]]:
    """Parameters and gradients."""
    import numpy as np

    random = np.random.default_rng(0)
    draws = [random.standard_normal(shape, np.float32) for shape in shapes]
    return [0.02 * draw for draw in draws], [1e-3 * draw for draw in draws]


def optax_step(ref: str, shapes: Shapes) -> Step:
    import jax
    import jax.numpy as jnp
    import optax

    import mnemo_compile as mnemo

    transformation = mnemo.to_optax(ref)()
    params, grads = ([jnp.array(array) for array in arrays] for arrays in _arrays(shapes))
    state = transformation.init(params)

    def advance(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(advance, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(jitted(params, state, grads))

    return step


def onnx_step(ref: str, shapes: Shapes) -> Step:
    import mnemo_compile as mnemo
    from mnemo_compile.exporters import exporter_of

    params, grads = _arrays(shapes)
    with tempfile.TemporaryDirectory() as folder:
        mnemo.export(ref, "onnx", folder)
        exported = exporter_of("onnx").open(mnemo.load(ref), pathlib.Path(folder) / "onnx")
        # Sessions hold the models after this.
        named = {f"tensor.{place}": param for place, param in enumerate(params)}
        rollout = exported.start(named, lr=1.0, weight_decay=0.0, total_steps=None)
    params.clear()
    named.clear()
    return lambda: rollout.step(grads)


TARGETS: dict[str, Callable[[str, Shapes], Step]] = {
    "torch": lambda ref, shapes: torch_step(ref, shapes, backend="torch"),
    "torch-compiled": lambda ref, shapes: torch_step(ref, shapes, backend="compiled"),
    "optax": optax_step,
    "onnx": onnx_step,
}


def seconds(step: Step) -> float:
    """Of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def extra_memory(step: Step) -> int:
    """Bytes that a step adds to the resident memory at its peak. Linux counts them."""
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure(target: str, ref: str, shapes: Shapes, steps: int) -> dict[str, Any]:
    """What one process finds."""
    step = TARGETS[target](ref, shapes)
    first = seconds(step)
    second = seconds(step)
    extra = [extra_memory(step) for _ in range(2)]
    adamw = adamw_step(shapes)
    adamw()
    pairs = [(seconds(step), seconds(adamw)) for _ in range(steps)]
    return {
        "target": target,
        "seconds": statistics.median(mine for mine, _ in pairs),
        "adamw_seconds": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
        "first_step_seconds": first - second,
        "extra_bytes": max(extra),
    }


def main() -> None:
    if any(argument.partition("=")[0] == "--device" for argument in sys.argv[1:]):
        # A path and not an import, because the other file stands alone, and this one may be run by its path.
        runpy.run_path(str(pathlib.Path(__file__).with_name("step_gpu.py")), run_name="__main__")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", default="mnemosyne-tiny")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
    parser.add_argument("--here", action="store_true", help="measure the one target in this process")
    arguments = parser.parse_args()
    # Every library takes as many threads as it sees processors.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    shapes = vision_transformer(arguments.width, arguments.depth, arguments.patch, arguments.classes)
    if arguments.here:
        print(json.dumps(measure(arguments.targets[0], arguments.ref, shapes, arguments.steps)))
        return
    results = []
    count = sum(map(math.prod, shapes))
    print(f"{count:,} parameters in {len(shapes)} tensors, {arguments.threads} threads")
    print(f"{'target':<15} {'ms':>8} {'AdamW ms':>9} {'ratio':>6} {'first step, s':>14} {'extra, MiB':>11}")
    for target in arguments.targets:
        command = [sys.executable, __file__, *sys.argv[1:], "--here", "--targets", target]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        results.append(result)
        print(
            f"{target:<15} {1e3 * result['seconds']:>8.0f} {1e3 * result['adamw_seconds']:>9.0f} "
            f"{result['ratio']:>6.2f} {result['first_step_seconds']:>14.1f} {result['extra_bytes'] / 2**20:>11.1f}",
            flush=True,
        )
    report = {**vars(arguments), "tensors": len(shapes), "parameters": count, "results": results}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
