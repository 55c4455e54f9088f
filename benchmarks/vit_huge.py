"""Whole training steps of a Vision Transformer of Huge size on a CPU: seconds of the optimizer, and peak memory.

The network has random weights; images and labels are random too. Everything is float32, and the activations of a layer
are computed again in the backward pass. Each optimizer runs in a process of its own, because peak memory never falls.

python -m benchmarks.vit_huge                                # 632 million parameters, 11 GB and six minutes
python -m benchmarks.vit_huge --layers 36                    # the paper's depth: 711 million
python -m benchmarks.vit_huge --layers 2 --width 128         # quick
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from typing import Any

HEADS = 16
LABELS = 1000
OPTIMIZERS = ("mnemosyne-base", "AdamW")


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains with one optimizer in this process."""
    # The process that starts the others must stay small, so it does not import these.
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    import mnemo_compile as mnemo

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    classes: dict[str, Any] = {"num_labels": LABELS}
    config = ViTConfig(
        hidden_size=arguments.width,
        intermediate_size=4 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=HEADS,
        patch_size=14,
        **classes,
    )
    model = ViTForImageClassification(config).train()
    model.gradient_checkpointing_enable()
    if name == "AdamW":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    else:
        optimizer = mnemo.to_torch(name)(model.named_parameters(), total_steps=100)
    images = torch.randn(arguments.batch, 3, 224, 224)
    labels = torch.randint(LABELS, (arguments.batch,))
    passes, steps, losses = [], [], []
    for step in range(arguments.steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = model(pixel_values=images, labels=labels).loss
        loss.backward()
        middle = time.perf_counter()
        optimizer.step()
        passes.append(middle - began)
        steps.append(time.perf_counter() - middle)
        losses.append(loss.item())
        print(f"{name}, step {step}: pass {passes[-1]:.1f} s, step {steps[-1]:.1f} s", file=sys.stderr, flush=True)
    if not all(map(math.isfinite, losses)):
        raise SystemExit(f"the losses of {name} are not finite: {losses}")
    values = [value for each in optimizer.state.values() for value in each.values()]
    state = [value for value in values if isinstance(value, torch.Tensor)]
    parameters = sum(param.numel() for param in model.parameters())
    return {
        "optimizer": name,
        "parameters": parameters,
        # The first step makes the state.
        "pass_seconds": min(passes[1:]),
        "step_seconds": min(steps[1:]),
        "state_bytes_per_parameter": sum(tensor.nbytes for tensor in state) / parameters,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "losses": losses,
    }


def main() -> None:
    """Prints a row per optimizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=1280, help=f"a multiple of {HEADS} heads")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="2 or more; the first one is not timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=OPTIMIZERS, help="measure in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps must be 2 or more, because the first step is not timed")
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    for name in OPTIMIZERS:
        command = [sys.executable, "-m", "benchmarks.vit_huge", *sys.argv[1:], "--only", name]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            raise SystemExit(f"{name} ended with exit code {child.returncode}; its message stands above")
        row = json.loads(child.stdout)
        print(
            f"{name}: {row['parameters']:,} parameters, pass {row['pass_seconds']:.1f} s, "
            f"step {row['step_seconds']:.2f} s, state {row['state_bytes_per_parameter']:.2f} bytes per parameter, "
            f"peak {row['peak_gb']:.2f} GB, losses {' '.join(f'{loss:.3f}' for loss in row['losses'])}",
            flush=True,
        )


if __name__ == "__main__":
    main()
