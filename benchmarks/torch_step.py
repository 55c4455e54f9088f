"""Time and memory of one step of the PyTorch export beside torch.optim.AdamW, on the tensors of a Vision Transformer.

python benchmarks/torch_step.py --width 768 --depth 12 --patch 16     # ViT-B/16, 86 million parameters
"""

import argparse
import json
import statistics
import time

import torch

import mnemo_compile as mnemo


def vision_transformer(width: int, depth: int, patch: int, classes: int) -> list[tuple[int, ...]]:
    """Shapes of its parameter tensors."""
    places = (224 // patch) ** 2 + 1
    block = [
        (width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,),
        (width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,),
    ]  # fmt: skip
    ends = [(1, 1, width), (1, places, width), (width, 3, patch, patch), (width,), (width,), (width,)]
    return [*ends, *(block * depth), (classes, width), (classes,)]


def seconds(optimizer: torch.optim.Optimizer) -> float:
    """Of one step."""
    started = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a step beside AdamW's.")
    parser.add_argument("--ref", default="mnemosyne-tiny")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--block-size", type=int, default=65536)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    make = mnemo.to_torch(arguments.ref)
    torch.set_num_threads(arguments.threads)
    shapes = vision_transformer(arguments.width, arguments.depth, arguments.patch, arguments.classes)
    params = [torch.nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes]
    for param in params:
        param.grad = 1e-3 * torch.randn_like(param)
    adamw = torch.optim.AdamW(params, foreach=True)
    ours = make(params, block_size=arguments.block_size)
    for optimizer in (adamw, ours):
        optimizer.step()  # makes the state
    pairs = [(seconds(ours), seconds(adamw)) for _ in range(arguments.steps)]
    count = sum(param.numel() for param in params)
    slots = [v for v in ours.state[params[2]].values() if v.shape == params[2].shape]
    result = {
        "tensors": len(params),
        "parameters": count,
        "adamw_seconds": statistics.median(adamw for _, adamw in pairs),
        "seconds": statistics.median(mine for mine, _ in pairs),
        "ratio": statistics.median(mine / adamw for mine, adamw in pairs),
        "state_bytes_a_parameter": sum(v.element_size() for v in slots),
        "threads": arguments.threads,
        "block_size": arguments.block_size,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
