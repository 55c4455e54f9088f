"""A batch without numbers, as a task's model reads it."""

from typing import Any, TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 512
"""Symbols of a text, where the user and the model say nothing else."""


def text_length(name: str, config: Any, length: int | None, virtual_tokens: int) -> int:
    """Symbols of a text, within what the model can read."""
    places = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if getattr(config, "relative_attention_num_buckets", None):
        places = None
    longest = None if places is None else places - virtual_tokens
    if length is None:
        return LENGTH if longest is None else min(LENGTH, longest)
    if longest is not None and length > longest:
        raise UsageError(f"{name} reads at most {longest} symbols; pass a --length up to that")
    return length


def batch_of(config: Any, batch: int, length: int, *, is_labelled_once: bool) -> "dict[str, Tensor]":
    """The arguments of the model's forward pass, on the device of the surroundings.

    **Arguments:**

    - `config`: that of the model.
    - `batch`: examples.
    - `length`: symbols of a text and of its labels, 0 for images.
    - `is_labelled_once`: whether an example has one label, and not one per symbol.
    """
    import torch

    labels = torch.zeros(batch if is_labelled_once else (batch, length), dtype=torch.long)
    if not length:
        size = config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.empty(batch, config.num_channels, height, width), "labels": labels}
    symbols = torch.zeros((batch, length), dtype=torch.long)
    return {"input_ids": symbols, "attention_mask": torch.ones_like(symbols), "labels": labels}
