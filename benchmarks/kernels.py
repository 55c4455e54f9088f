"""Launches, traffic and extra memory of a step by Triton kernels, counted without a GPU.

python -m benchmarks.kernels                    # three cells, ViT-B/16 and ViT-H/14

Launches are those of a step whose tensors have not moved since the last one. Phases with a network run in torch, and an
operation of torch counts as one launch, though a few take more. Bytes per parameter are what kernels over all
coordinates ask of memory; what a tile reads again after its polar factor is counted apart, because a cache holds it.
Extra memory is what tables, sums and numbers of tensors take beyond parameters, gradients and state.
"""

import argparse
import importlib
import math
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

from benchmarks.step import Shapes, vision_transformer

os.environ["TRITON_INTERPRET"] = "1"

NETWORKS: dict[str, Shapes] = {
    "ViT-B/16": vision_transformer(768, 12, 16, 1000),
    "ViT-H/14": vision_transformer(1280, 32, 14, 1000),
}


class Step(NamedTuple):
    """A step over tensors whose numbers are never read."""

    launcher: Any
    bucket: Any
    options: dict[str, list[float]]


def step_over(package: Any, shapes: Shapes, dtype: Any) -> Step:
    """The step over tensors of these shapes."""
    import torch

    launch, parts, partition = (
        importlib.import_module(f"{package.__name__}.{name}") for name in ("_launch", "_parts", "_partition")
    )
    phases = package._phases
    names = [f"{place}.{'weight' if len(shape) > 1 else 'bias'}" for place, shape in enumerate(shapes)]
    facts = [parts.Facts(shape, name, None, 0) for name, shape in zip(names, shapes, strict=True)]
    device = torch.device("cpu")
    cut = partition.Partition(facts, shapes, 131072, 131072, False, device, torch.float32)
    launcher = launch.Launcher(cut, facts, shapes, device)
    # Memory that is not written takes no space.
    tensors = {name: [torch.empty(shape, dtype=dtype) for shape in shapes] for name in ("param", "grad")}
    for slot in phases.MEMORY:
        key = f"memory.{slot.name}"
        tensors[key] = [
            torch.empty(slot.tensor_shape(shape, phases.CHUNK_LENGTH), dtype=getattr(torch, slot.dtype))
            for shape in shapes
        ]
    states = [torch.zeros(sum(map(math.prod, phases.STATE.values()))) for _ in shapes]
    bucket = launcher.bucket(cut, tensors, states, torch.float32, "bfloat16", None)
    return Step(launcher, bucket, {name: [1.0] for name in launch.OPTIONS})


def launches(step: Step) -> tuple[int, int]:
    """Launches of kernels, and operations of torch, of a step like the one before it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operations(TorchDispatchMode):
        """Counts operations that compute something."""

        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            is_free = func.is_view or func.namespace == "profiler" or "empty" in func.name() or "split" in func.name()
            self.count += not is_free
            return func(*args, **(kwargs or {}))

    kernels = 0

    def start(*arguments: Any, **others: Any) -> None:
        nonlocal kernels
        kernels += 1

    step.launcher._start = start
    clock, skipped = (torch.zeros((), dtype=torch.int64) for _ in range(2))
    operations = Operations()
    for _ in range(2):
        kernels = operations.count = 0
        with operations:
            step.bucket.begin(clock, step.options)
            step.bucket.take(skipped)
    return kernels, operations.count


def counts(package: Any, shapes: Shapes, dtype: Any) -> dict[str, float]:
    """What a step over tensors of these shapes costs."""
    import torch

    step = step_over(package, shapes, dtype)
    kernels, operations = launches(step)
    made, phases = step.launcher, package._phases
    owners = (made, made.samples, *made.samples.packs)
    arrays = [value for owner in owners for value in vars(owner).values() if isinstance(value, torch.Tensor)]
    arrays += [
        array
        for launch in (*made.measured, *made.updated, *made.tiled)
        for array in (launch.table, launch.blocks, launch.starts)
    ]
    total = sum(map(math.prod, shapes))
    number = torch.empty((), dtype=dtype).element_size()
    moved = again = 0
    for row, place in enumerate(made.order):
        slots = [slot for slot in phases.MEMORY if f"memory.{slot.name}" in made.slots[row]]
        memory = sum(slot.number_bytes for slot in slots)
        size = math.prod(shapes[place])
        # The sums read parameter and gradient; the update reads all and writes all but the gradient.
        moved += size * (2 * number + 3 * number + 2 * memory)
        again += size * (number + memory) if made.matrices[row] is not None else 0
    return {
        "tensors": len(shapes),
        "launches": kernels + operations,
        "by torch": operations,
        "bytes per parameter": moved / total,
        "read again": again / total,
        "extra MiB": sum(array.numel() * array.element_size() for array in arrays) / 2**20,
    }


def main() -> None:
    import torch

    import mnemo_compile as mnemo
    from mnemo_compile.exporters.python import load_package, package_name
    from mnemo_compile.exporters.torch import TorchExporter
    from mnemo_compile.program import compile_cell

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refs", nargs="+", default=["mnemosyne-elementwise", "mnemosyne-base", "mnemosyne-tiny"])
    arguments = parser.parse_args()
    print("| cell | network | dtype | tensors | launches | by torch | bytes per parameter | read again | extra MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for ref in arguments.refs:
        frozen = mnemo.load(ref)
        with tempfile.TemporaryDirectory() as folder:
            TorchExporter().emit(frozen, compile_cell(frozen.cell()), pathlib.Path(folder))
            package = load_package(pathlib.Path(folder) / package_name(frozen))
            for network, shapes in NETWORKS.items():
                for dtype in (torch.float32, torch.bfloat16):
                    found = counts(package, shapes, dtype)
                    numbers = " | ".join(f"{value:.4g}" for value in found.values())
                    print(f"| `{ref}` | {network} | {str(dtype).removeprefix('torch.')} | {numbers} |")


if __name__ == "__main__":
    main()
