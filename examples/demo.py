"""The whole of it in minutes: meta-train, export, and train a GPT and a Vision Transformer with the result.

One optimizer with nothing tuned stands beside AdamW and Muon, each over a grid of rates.

    make demo
"""

import argparse
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table
import torch
from torch import nn

MODEL = "mnemosyne-base"
WARM_UP = 0.05
"""Fraction of the steps over which the rates of AdamW and Muon grow; then they fall as a cosine to zero."""
DECAY = 0.1
"""Weight decay of AdamW and Muon."""
RATES = {"AdamW": (3e-4, 1e-3, 3e-3, 1e-2), "Muon": (1e-3, 3e-3, 1e-2, 3e-2)}
console = rich.console.Console(soft_wrap=True)


class Transformer(nn.Module):
    """Pre-norm blocks between an embedding and a head."""

    def __init__(self, embedding: nn.Module, places: int, width: int, depth: int, outputs: int, *, causal: bool):
        super().__init__()
        self.embedding = embedding
        self.position_embedding = nn.Parameter(0.02 * torch.randn(places, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        self.mask = nn.Transformer.generate_square_subsequent_mask(places) if causal else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.embedding(inputs) + self.position_embedding
        x = self.norm(self.blocks(x, mask=self.mask, is_causal=self.mask is not None))
        return self.head(x if self.mask is not None else x.mean(dim=1))


class Task(NamedTuple):
    """A network, its data and its number of steps."""

    title: str
    steps: int
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]
    """Inputs and targets of a step."""
    held_out: tuple[torch.Tensor, torch.Tensor]


def gpt(steps: int) -> Task:
    """A decoder over the bytes of the interpreter's sources."""
    width, context, batch = 96, 64, 16
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = torch.tensor(np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8).astype(np.int64))
    cut = len(text) * 97 // 100
    columns = torch.arange(context + 1)

    def windows(low: int, high: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(low, high - context - 1, (count, 1), generator=generator)
        rows = text[starts + columns]
        return rows[:, :-1], rows[:, 1:]

    def build() -> nn.Module:
        embedding = nn.Embedding(256, width)
        nn.init.normal_(embedding.weight, std=0.02)
        return Transformer(embedding, context, width, 3, 256, causal=True)

    return Task(
        title="A GPT on Python sources",
        steps=steps,
        build=build,
        batch=lambda generator: windows(0, cut, batch, generator),
        held_out=windows(cut, len(text), 128, torch.Generator().manual_seed(0)),
    )


def vision_transformer(steps: int) -> Task:
    """A Vision Transformer on the sixteen 2×2 patches of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    width, held_out = 48, 360
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(labels))
    x = torch.tensor((images[order] - 4.9) / 6.0, dtype=torch.float32)
    x = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
    y = torch.tensor(labels[order], dtype=torch.int64)

    def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.randint(held_out, len(x), (64,), generator=generator)
        return x[index], y[index]

    return Task(
        title="A Vision Transformer on digits",
        steps=steps,
        build=lambda: Transformer(nn.Linear(4, width), 16, width, 3, 10, causal=False),
        batch=batch,
        held_out=(x[:held_out], y[:held_out]),
    )


MakeOptimizers = Callable[[nn.Module, int], list[torch.optim.Optimizer]]
"""The optimizers of a network that trains for this many steps."""


def train(task: Task, make: MakeOptimizers, *, has_schedule: bool) -> dict[str, Any]:
    """Trains the network of a task. Returns losses, held-out loss, and the time of the optimizer."""
    torch.manual_seed(0)
    model = task.build()
    generator = torch.Generator().manual_seed(0)
    optimizers = make(model, task.steps)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, schedule(task.steps)) for each in optimizers if has_schedule]
    losses, in_optimizer = [], 0.0
    started = time.perf_counter()
    for _ in range(task.steps):
        inputs, targets = task.batch(generator)
        loss = loss_of(model, inputs, targets)
        model.zero_grad()
        loss.backward()
        began = time.perf_counter()
        for each in (*optimizers, *schedules):
            each.step()
        in_optimizer += time.perf_counter() - began
        losses.append(loss.item())
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        held_out = float(loss_of(model, *task.held_out))
    return {
        "losses": losses,
        "validation_loss": held_out if math.isfinite(held_out) else math.inf,
        "share_of_step": in_optimizer / seconds,
    }


def loss_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over all places."""
    logits = model(inputs)
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def schedule(steps: int) -> Callable[[int], float]:
    """Linear warm-up, then a cosine to zero."""

    def factor(step: int) -> float:
        return min((step + 1) / (WARM_UP * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))

    return factor


def adamw(rate: float) -> MakeOptimizers:
    """AdamW at this rate."""
    return lambda model, steps: [torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=DECAY)]


def muon(rate: float) -> MakeOptimizers:
    """Muon at this rate for matrices inside the network, and AdamW at 3e-3 for all else, as its author advises."""

    def make(model: nn.Module, steps: int) -> list[torch.optim.Optimizer]:
        named = list(model.named_parameters())
        inner = [p for name, p in named if name.startswith("blocks.") and p.ndim == 2]
        ids = set(map(id, inner))
        others = [p for _, p in named if id(p) not in ids]
        return [
            torch.optim.Muon(inner, lr=rate, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=3e-3, weight_decay=DECAY),
        ]

    return make


def mnemo(*arguments: str) -> None:
    """Runs the command line as a user would, and shows what it is."""
    console.print(f"\n[bold]$ mnemo {' '.join(arguments)}[/bold]")
    subprocess.run([sys.executable, "-m", "mnemo_compile", *arguments], check=True)


def load_package(folder: pathlib.Path, alias: str) -> Any:
    """Imports the package in a folder. Two exports of one cell bear one name, so each gets an alias here."""
    spec = importlib.util.spec_from_file_location(alias, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[alias] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package_in(folder: pathlib.Path) -> pathlib.Path:
    """The exported package."""
    return folder / MODEL.replace("-", "_")


def agreement(package: Any, exported: pathlib.Path) -> list[tuple[str, float]]:
    """One step on one matrix in PyTorch, optax and onnxruntime: largest difference to PyTorch over the step's size."""
    import jax.numpy as jnp
    import onnxruntime

    total, random = 100, np.random.default_rng(0)
    # Small parameters, so that their own rounding does not hide the step.
    start, grad = (scale * random.normal(size=(48, 40)).astype(np.float32) for scale in (np.float32(1e-3), 1))

    param = nn.Parameter(torch.tensor(start.copy()))
    param.grad = torch.tensor(grad)
    package.Mnemosyne([param], total_steps=total).step()
    moved = param.detach().numpy() - start

    optax_package = load_package(package_in(exported / "optax"), "optax_export")
    transformation = optax_package.mnemosyne(total_steps=total)
    updates, _ = transformation.update(jnp.asarray(grad), transformation.init(jnp.asarray(start)), jnp.asarray(start))

    session = onnxruntime.InferenceSession(str(exported / "onnx" / "update_matrix.onnx"))
    given = {
        "param": start[None],
        "grad": grad[None],
        "role": 1,  # a matrix
        "total_steps": total,
        "lr": 1,
        "pretrained": -1,
    }
    inputs = {}
    for node in session.get_inputs():
        shape = start[None].shape if "rows" in node.shape else node.shape
        dtype = np.int64 if "int64" in node.type else np.float32
        inputs[node.name] = np.asarray(given.get(node.name, np.zeros(shape)), dtype)
    after = np.asarray(session.run(["next.param"], inputs)[0])

    def difference(other: np.ndarray) -> float:
        return float(np.abs(other - moved).max() / np.abs(moved).max())

    return [("optax", difference(np.asarray(updates))), ("onnxruntime", difference(after.reshape(48, 40) - start))]


def draw(results: dict[str, dict[str, list[float]]], path: pathlib.Path) -> None:
    """Smoothed training loss against steps, a panel per task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(results), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, curves) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        for name, losses in curves.items():
            smooth = [np.mean(losses[max(0, t - 9) : t + 1]) for t in range(len(losses))]
            axes.plot(smooth, alpha=0.8, label=name)
        axes.set(yscale="log", xlabel="step", ylabel="training loss (mean of 10 steps)", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=130)


def compare(task: Task, package: Any) -> dict[str, dict[str, Any]]:
    """The optimizers on a task, by name: ours with nothing tuned, the others at the best rate of their grids."""
    console.rule(task.title)
    runs: dict[str, dict[str, Any]] = {}

    def run(name: str, make: MakeOptimizers, *, has_schedule: bool) -> dict[str, Any]:
        result = train(task, make, has_schedule=has_schedule)
        console.print(f"{name}: validation loss {result['validation_loss']:.4f}")
        return result

    def ours(model: nn.Module, steps: int) -> list[torch.optim.Optimizer]:
        return [package.Mnemosyne(model.named_parameters(), total_steps=steps)]

    runs[f"{MODEL}, nothing tuned"] = run(MODEL, ours, has_schedule=False)
    for name, make in (("AdamW", adamw), ("Muon", muon)):
        grid = {rate: run(f"{name}, rate {rate:g}", make(rate), has_schedule=True) for rate in RATES[name]}
        best = min(grid, key=lambda rate: grid[rate]["validation_loss"])
        runs[f"{name}, best of {len(grid)} rates ({best:g})"] = grid[best]
        if name == "AdamW":
            runs["AdamW at 1e-3"] = grid[1e-3]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description="Meta-train, export, and train with the result.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"))
    parser.add_argument("--minutes", type=float, default=1.0, help="of meta-training")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    arguments = parser.parse_args()
    out: pathlib.Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    console.rule("1. Meta-train an optimizer")
    run = next(out / f"run-{number}" for number in range(1, 10_000) if not (out / f"run-{number}").exists())
    mnemo("meta-train", "tiny", "--out", str(run), "--minutes", f"{arguments.minutes:g}")

    console.rule(f"2. Export the zoo's {MODEL}, verified")
    exported = out / "export"
    mnemo("export", MODEL, "--target", "all", "--out", str(exported))
    package = load_package(package_in(exported / "torch"), "torch_export")

    console.rule("3. The same step in optax and onnxruntime")
    for target, difference in agreement(package, exported):
        console.print(f"{target}: differs from PyTorch by {difference:.1e} of the step")

    tasks = [gpt(arguments.steps), vision_transformer(arguments.steps)]
    results = {task.title: compare(task, package) for task in tasks}

    console.rule("Result")
    table = rich.table.Table(title=f"Validation loss after {arguments.steps} steps")
    table.add_column("optimizer")
    for title in results:
        table.add_column(title, justify="right")
        table.add_column("optimizer's time", justify="right")
    for place in range(len(next(iter(results.values())))):
        cells: list[str] = []
        for runs in results.values():
            result = list(runs.values())[place]
            cells += [f"{result['validation_loss']:.4f}", f"{result['share_of_step']:.0%}"]
        table.add_row(" / ".join(dict.fromkeys(list(runs)[place] for runs in results.values())), *cells)
    console.print(table)
    draw(
        {title: {name: run["losses"] for name, run in runs.items()} for title, runs in results.items()},
        out / "demo.png",
    )
    summary = {
        title: {name: {key: value for key, value in run.items() if key != "losses"} for name, run in runs.items()}
        for title, runs in results.items()
    }
    (out / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(f"Curves: {out / 'demo.png'}. All of it took {time.perf_counter() - started:.0f} s.\n")
    console.print("Next:")
    console.print(f"  .venv/bin/mnemo export {run} --target torch --out build/mine   # the optimizer just meta-trained")
    console.print(f"  .venv/bin/mnemo inspect {MODEL}                          # what it is made of")
    console.print("  .venv/bin/mnemo meta-train tiny --out runs/first --minutes 5   # a better one")


if __name__ == "__main__":
    main()
