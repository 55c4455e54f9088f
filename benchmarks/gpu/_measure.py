"""Trains for a few steps with an exported optimizer and with fused AdamW, and times them on the device."""

import json
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..step_gpu import load_exported

Optimizer = torch.optim.Optimizer
WARM_UP = 3
"""Steps that make state and compile kernels, and are not timed."""


@dataclass(frozen=True)
class Run:
    """What is measured."""

    name: str
    make: Callable[[], torch.nn.Module]
    """Makes the network, with random weights, on the device."""
    loss: Callable[[torch.nn.Module], torch.Tensor]
    """Of one batch."""
    items: int
    """Images or tokens of a batch."""
    unit: str


@dataclass(frozen=True)
class Figures:
    """Of one optimizer. Times are medians, in seconds."""

    optimizer: str
    trained_parameters: int
    all_parameters: int
    steps: int
    first_step_seconds: float
    step_seconds: float
    optimizer_seconds: float
    optimizer_share: float
    items_per_second: float
    peak_gb: float | None
    """Of the device's memory; none on a CPU."""
    first_loss: float
    last_loss: float


def device_of(*, is_tiny: bool) -> torch.device:
    """The GPU, or the CPU for tiny sizes where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if not is_tiny:
        raise SystemExit("there is no GPU here; pass --tiny to run tiny sizes on the CPU")
    return torch.device("cpu")


def load_one(folder: pathlib.Path) -> Any:
    """The class of an exported package: its folder, or the one above it."""
    exported = load_exported(folder)
    if len(exported) == 1:
        return next(iter(exported.values()))
    if exported:
        raise SystemExit(f"{folder} holds several packages; pass the folder of one: {', '.join(exported)}")
    raise SystemExit(f"{folder} holds no package of mnemo export mnemosyne-base --target torch --out DIR")


def measure(run: Run, exported: Any, device: torch.device, *, steps: int, seconds: float, out: pathlib.Path) -> None:
    """Measures both optimizers, each for at most this many seconds, and writes each result as it comes."""
    results: dict[str, Any] = {
        "run": run.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "unit": run.unit,
        "optimizers": [],
    }
    makes: dict[str, Callable[[Any], Optimizer]] = {
        "mnemosyne": lambda named: exported(named, total_steps=1000),
        "AdamW, fused": lambda named: torch.optim.AdamW([param for _, param in named], lr=1e-4, fused=True),
    }
    for name, make in makes.items():
        figures = _train(run, name, make, device, steps, seconds)
        results["optimizers"].append(asdict(figures))
        print(_line(run, figures), flush=True)
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _train(
    run: Run, name: str, make: Callable[[Any], Optimizer], device: torch.device, steps: int, seconds: float
) -> Figures:
    torch.manual_seed(0)
    began = time.perf_counter()
    model = run.make().train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    named = [(key, param) for key, param in model.named_parameters() if param.requires_grad]
    optimizer = make(named)
    rows, losses = [], []
    for step in range(WARM_UP + steps):
        started = _now(device)
        optimizer.zero_grad()
        loss = run.loss(model)
        loss.backward()
        middle = _now(device)
        optimizer.step()
        ended = _now(device)
        rows.append((ended - started, ended - middle))
        losses.append(loss.item())
        del loss
        if step > WARM_UP and ended - began > seconds:
            break
    timed = rows[WARM_UP:]
    whole, own = (statistics.median(column) for column in zip(*timed, strict=True))
    is_gpu = device.type == "cuda"
    figures = Figures(
        optimizer=name,
        trained_parameters=sum(param.numel() for _, param in named),
        all_parameters=sum(param.numel() for param in model.parameters()),
        steps=len(timed),
        first_step_seconds=rows[0][0],
        step_seconds=whole,
        optimizer_seconds=own,
        optimizer_share=own / whole,
        items_per_second=run.items / whole,
        peak_gb=torch.cuda.max_memory_allocated() / 1e9 if is_gpu else None,
        first_loss=losses[0],
        last_loss=losses[-1],
    )
    del model, optimizer, named
    if is_gpu:
        torch.cuda.empty_cache()
    return figures


def _now(device: torch.device) -> float:
    """The time when the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _line(run: Run, figures: Figures) -> str:
    peak = "" if figures.peak_gb is None else f", peak {figures.peak_gb:.1f} GB"
    return (
        f"{run.name}, {figures.optimizer}: {figures.trained_parameters:,} of {figures.all_parameters:,} parameters, "
        f"step {1e3 * figures.step_seconds:.1f} ms, of it the optimizer {1e3 * figures.optimizer_seconds:.2f} ms "
        f"({figures.optimizer_share:.1%}), {figures.items_per_second:,.0f} {run.unit} per second{peak}, "
        f"loss {figures.first_loss:.3f} to {figures.last_loss:.3f}"
    )
