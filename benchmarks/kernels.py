"""Launches, traffic and extra memory of a step by Triton kernels, counted without a GPU.

python -m benchmarks.kernels                    # mnemosyne-elementwise and mnemosyne-base, ViT-B/16 and ViT-H/14

Launches are those of a step whose tensors have not moved since the last one. Bytes per parameter are what kernels ask
of memory; what a tile reads again after its polar factor is counted apart, because a cache holds it. Extra memory is
what tables, sums and numbers of tensors take beyond parameters, gradients and state.
"""

import argparse
import importlib
import math
import os
import pathlib
import tempfile
from typing import Any

from benchmarks.step import Shapes, vision_transformer

os.environ["TRITON_INTERPRET"] = "1"

NETWORKS: dict[str, Shapes] = {
    "ViT-B/16": vision_transformer(768, 12, 16, 1000),
    "ViT-H/14": vision_transformer(1280, 32, 14, 1000),
}


def launcher_of(package: Any, shapes: Shapes, dtype: Any) -> Any:
    """The tables for tensors of these shapes, whose numbers are never read."""
    import torch

    launch, parts, partition = (
        importlib.import_module(f"{package.__name__}.{name}") for name in ("_launch", "_parts", "_partition")
    )
    phases = package._phases
    names = [f"{place}.{'weight' if len(shape) > 1 else 'bias'}" for place, shape in enumerate(shapes)]
    facts = [parts.Facts(shape, name, None, 0) for name, shape in zip(names, shapes, strict=True)]
    device = torch.device("cpu")
    cut = partition.Partition(facts, shapes, 131072, 131072, False, device, torch.float32)
    made = launch.Launcher(cut, facts, shapes, device)
    ordered = [shapes[place] for place in cut.order]
    # Memory that is not written takes no space.
    tensors = {name: [torch.empty(shape, dtype=dtype) for shape in ordered] for name in ("param", "grad")}
    for slot in phases.MEMORY:
        key = f"memory.{slot.name}"
        tensors[key] = [torch.empty(shape, dtype=getattr(torch, slot.dtype)) for shape in ordered]
    made.refresh(tensors, [torch.zeros(64) for _ in shapes])
    return made


def counts(package: Any, shapes: Shapes, dtype: Any) -> dict[str, float]:
    """What a step over tensors of these shapes costs."""
    import torch

    made = launcher_of(package, shapes, dtype)
    phases, step = package._phases, package._step
    of_tensors = sum(phase.rows == "tensors" and phase.name in phases.KERNELS for phase in step.PHASES)
    launches = len(made.measured) + 1 + of_tensors + 1 + len(made.updated) + len(made.tiled)
    arrays = [value for value in vars(made).values() if isinstance(value, torch.Tensor)]
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
        "launches": launches,
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
    parser.add_argument("--refs", nargs="+", default=["mnemosyne-elementwise", "mnemosyne-base"])
    arguments = parser.parse_args()
    print("| cell | network | dtype | tensors | launches | bytes per parameter | read again | extra MiB |")
    print("|---|---|---|---|---|---|---|---|")
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
