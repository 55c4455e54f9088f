"""The whole of it in minutes: meta-train, export, and train a Vision Transformer on digits with the result.

Shows the main job on real images, beside AdamW at its default rate and at the best of a grid.

    make demo
"""

import argparse
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rich.console
import rich.table
import torch
from torch import nn

MODEL = "mnemosyne-base"
STEPS = 400
BATCH = 64
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
HELD_OUT = 360
console = rich.console.Console(soft_wrap=True)


class VisionTransformer(nn.Module):
    """Two pre-norm blocks of width 32 on the sixteen 2×2 patches of an 8×8 image."""

    def __init__(self, width: int = 32, depth: int = 2):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = images.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        return self.head(self.norm(self.blocks(self.embed(patches) + self.position)).mean(dim=1))


def load_digits() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Training and validation images of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(labels))
    x = torch.tensor((images[order] - 4.9) / 6.0, dtype=torch.float32)
    y = torch.tensor(labels[order], dtype=torch.int64)
    return (x[HELD_OUT:], y[HELD_OUT:]), (x[:HELD_OUT], y[:HELD_OUT])


def train(make: Callable[[nn.Module], tuple[torch.optim.Optimizer, Any]], seed: int) -> dict[str, Any]:
    """Trains the network from the start that the seed gives; its losses, accuracy and seconds."""
    torch.manual_seed(seed)
    model = VisionTransformer()
    (x, y), (held_x, held_y) = load_digits()
    order = torch.Generator().manual_seed(seed)
    optimizer, schedule = make(model)
    losses, in_optimizer, started = [], 0.0, time.perf_counter()
    for _ in range(STEPS):
        index = torch.randint(len(x), (BATCH,), generator=order)
        loss = nn.functional.cross_entropy(model(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        began = time.perf_counter()
        optimizer.step()
        in_optimizer += time.perf_counter() - began
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        logits = model(held_x)
    return {
        "losses": losses,
        "final": float(np.mean(losses[-STEPS // 10 :])),
        "validation_loss": float(nn.functional.cross_entropy(logits, held_y)),
        "accuracy": float((logits.argmax(1) == held_y).float().mean()),
        "seconds": seconds,
        "step_ms": 1e3 * in_optimizer / STEPS,
    }


def adamw(rate: float, cosine: bool) -> Callable[[nn.Module], tuple[torch.optim.Optimizer, Any]]:
    """AdamW at a rate that is constant or falls to zero over the run."""

    def make(model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if cosine else None

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

    random = np.random.default_rng(0)
    # Small parameters, so that their own rounding does not hide the step.
    start, grad = (scale * random.normal(size=(48, 40)).astype(np.float32) for scale in (np.float32(1e-3), 1))

    param = nn.Parameter(torch.tensor(start.copy()))
    param.grad = torch.tensor(grad)
    package.Mnemosyne([param], total_steps=STEPS).step()
    moved = param.detach().numpy() - start

    optax_package = load_package(package_in(exported / "optax"), "optax_export")
    transformation = optax_package.mnemosyne(total_steps=STEPS)
    updates, _ = transformation.update(jnp.asarray(grad), transformation.init(jnp.asarray(start)), jnp.asarray(start))

    session = onnxruntime.InferenceSession(str(exported / "onnx" / "update.onnx"))
    given = {
        "param": start.ravel(),
        "grad": grad.ravel(),
        "matrix": 1,
        "aspect": 48 / 40,
        "role": 1,  # a matrix
        "network.matrices": 1,
        "total_steps": STEPS,
        "lr": 1,
    }
    inputs = {}
    for node in session.get_inputs():
        shape = [start.size if isinstance(size, str) else size for size in node.shape]
        dtype = np.int64 if "int64" in node.type else np.float32
        inputs[node.name] = np.asarray(given.get(node.name, np.zeros(shape)), dtype)
    after = np.asarray(session.run(["next.param"], inputs)[0])

    def difference(other: np.ndarray) -> float:
        return float(np.abs(other - moved).max() / np.abs(moved).max())

    return [("optax", difference(np.asarray(updates))), ("onnxruntime", difference(after.reshape(48, 40) - start))]


def draw(curves: dict[str, list[list[float]]], path: pathlib.Path) -> None:
    """Smoothed training loss against steps, a line a seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (name, runs) in enumerate(curves.items()):
        for number, losses in enumerate(runs):
            smooth = [np.mean(losses[max(0, t - 9) : t + 1]) for t in range(len(losses))]
            axes.plot(smooth, color=f"C{index}", alpha=0.8, label=name if number == 0 else None)
    axes.set(
        yscale="log", xlabel="step", ylabel="training loss (mean of 10 steps)", title="A Vision Transformer on digits"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def mean(runs: list[dict[str, Any]], key: str) -> float:
    """Over seeds; infinite where a run diverged."""
    value = float(np.mean([run[key] for run in runs]))
    return value if math.isfinite(value) else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description="Meta-train, export, and train with the result.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"))
    parser.add_argument("--minutes", type=float, default=1.0, help="of meta-training")
    parser.add_argument("--seeds", type=int, default=2)
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

    console.rule("3. Train a Vision Transformer on digits")
    package = load_package(package_in(exported / "torch"), "torch_export")
    seeds = range(arguments.seeds)
    ours = [train(lambda model: (package.Mnemosyne(model.parameters(), total_steps=STEPS), None), s) for s in seeds]
    console.print(f"{MODEL}: final training loss {mean(ours, 'final'):.4f}")
    grid = {}
    for cosine in (False, True):
        for rate in RATES:
            runs = grid[rate, cosine] = [train(adamw(rate, cosine), s) for s in seeds]
            shown = f"AdamW, rate {rate:g}, {'cosine' if cosine else 'constant'}"
            console.print(f"{shown}: final training loss {mean(runs, 'final'):.4f}")

    best = min(grid, key=lambda setting: mean(grid[setting], "final"))
    rows = {
        f"{MODEL}, nothing tuned": ours,
        "AdamW, its default rate 1e-3": grid[1e-3, False],
        f"AdamW, best of {len(grid)} ({best[0]:g}, {'cosine' if best[1] else 'constant'})": grid[best],
    }

    console.rule("4. The same step in optax and onnxruntime")
    differences = agreement(package, exported)
    for target, difference in differences:
        console.print(f"{target}: differs from PyTorch by {difference:.1e} of the step")

    console.rule("Result")
    table = rich.table.Table(title=f"{STEPS} steps, mean of {len(seeds)} seeds")
    columns = ("optimizer", "final training loss", "validation loss", "accuracy", "ms per step")
    for column in columns:
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    for name, runs in rows.items():
        table.add_row(
            name,
            f"{mean(runs, 'final'):.4f}",
            f"{mean(runs, 'validation_loss'):.4f}",
            f"{mean(runs, 'accuracy'):.1%}",
            f"{mean(runs, 'step_ms'):.2f}",
        )
    console.print(table)
    draw({name: [run["losses"] for run in runs] for name, runs in rows.items()}, out / "demo.png")
    summary = {name: {key: mean(runs, key) for key in runs[0] if key != "losses"} for name, runs in rows.items()}
    (out / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(f"Curves: {out / 'demo.png'}. All of it took {time.perf_counter() - started:.0f} s.\n")
    console.print("Next:")
    console.print(f"  .venv/bin/mnemo export {run} --target torch --out build/mine   # the optimizer just meta-trained")
    console.print(f"  .venv/bin/mnemo inspect {MODEL}                          # what it is made of")
    console.print("  .venv/bin/mnemo meta-train tiny --out runs/first --minutes 5   # a better one")


if __name__ == "__main__":
    main()
