"""The optimizer's share of a training step: a GPT in PyTorch on the CPU, beside AdamW in turns.

python -m benchmarks.share                                   # 0.87 million parameters, 2,048 tokens, two threads
python -m benchmarks.share --ref mnemosyne-elementwise
python -m benchmarks.share --width 256 --depth 6
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import mnemo_compile as mnemo


class Gpt(nn.Module):
    """Pre-norm blocks over bytes, with an untied head."""

    def __init__(self, width: int, depth: int, context: int):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position_embedding = nn.Parameter(0.02 * torch.randn(context, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        self.mask = nn.Transformer.generate_square_subsequent_mask(context)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.position_embedding
        return self.head(self.norm(self.blocks(x, mask=self.mask, is_causal=True)))


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Prints the medians of a forward and backward pass, of a step, and of AdamW's step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", default="mnemosyne-base")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = Gpt(arguments.width, arguments.depth, arguments.context)
    ours = mnemo.to_torch(arguments.ref)(model.named_parameters(), total_steps=1000)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(256, (arguments.tokens // arguments.context, arguments.context + 1))

    def pass_over() -> None:
        model.zero_grad()
        logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.reshape(-1, 256), tokens[:, 1:].reshape(-1)).backward()

    rows = []
    for _ in range(arguments.steps):
        rows.append((seconds(pass_over), seconds(ours.step), seconds(adamw.step)))
    # The first steps make state.
    training, step, other = (1e3 * statistics.median(column) for column in zip(*rows[3:], strict=True))
    parameters = sum(param.numel() for param in model.parameters())
    print(f"{parameters:,} parameters, {arguments.tokens:,} tokens, {arguments.threads} threads")
    print(f"forward and backward {training:.1f} ms, {arguments.ref} {step:.1f} ms, AdamW {other:.1f} ms")
    print(f"share of a training step: {step / (training + step):.0%}; AdamW's {other / (training + other):.0%}")


if __name__ == "__main__":
    main()
