"""T5 v1.1 by shape, and its pre-training by span corruption."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from ._task import Example

SENTINELS = 100
T5_SHAPES: dict[str, tuple[int, int, int, int, int]] = {
    "t5-mini": (128, 384, 4, 4, 32),
    "t5-small": (512, 1024, 8, 6, 64),
    "t5-base": (768, 2048, 12, 12, 64),
    "t5-large": (1024, 2816, 24, 16, 64),
    "t5-xl": (2048, 5120, 24, 32, 64),
    "t5-xxl": (4096, 10240, 24, 64, 64),
}
"""Width, width of the perceptrons, layers of encoder and of decoder, heads, width of a head."""


def t5_config(shape: str, vocabulary: int, dropout: float) -> transformers.T5Config:
    """The configuration of a shape."""
    width, inner, layers, heads, head = T5_SHAPES[shape]
    values: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
    return transformers.T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_ff=inner,
        num_layers=layers,
        num_heads=heads,
        d_kv=head,
        feed_forward_proj="gated-gelu",
        dropout_rate=dropout,
        pad_token_id=0,
        eos_token_id=1,
        **values,
    )


def t5_special() -> list[str]:
    """The special tokens, in T5's order."""
    return ["<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(SENTINELS))]


@dataclass(frozen=True)
class SpanCorruption:
    """Blocks of tokens in which spans of three tokens on average, 15 % in all, are replaced by sentinels."""

    blocks: Tensor
    sentinels: Sequence[int]
    end: int

    def __len__(self) -> int:
        return len(self.blocks)

    def example(self, index: int, random: np.random.Generator) -> Example:
        tokens = self.blocks[index].tolist()
        noise = max(1, round(0.15 * len(tokens)))
        count = max(1, round(noise / 3))
        kept, dropped = _parts(len(tokens) - noise, count, random), _parts(noise, count, random)
        inputs, targets, place = [], [], 0
        for sentinel, keep, drop in zip(self.sentinels, kept, dropped, strict=False):
            inputs += [*tokens[place : place + keep], sentinel]
            targets += [sentinel, *tokens[place + keep : place + keep + drop]]
            place += keep + drop
        return {"input_ids": torch.tensor([*inputs, self.end]), "labels": torch.tensor([*targets, self.end])}


def _parts(total: int, count: int, random: np.random.Generator) -> list[int]:
    """Divides a number into positive parts at random."""
    cuts = np.sort(random.choice(np.arange(1, total), count - 1, replace=False))
    return np.diff([0, *cuts, total]).tolist()
