"""What is trained: a network, its examples, and how examples become a batch."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn, Tensor

Example = Mapping[str, Tensor]
"""Arguments of the network for one example, among them `labels`."""
Batch = dict[str, Tensor]
IGNORED = -100
"""The label of a place that has no loss."""


class Source(Protocol):
    """Examples by number. What is random in an example is drawn from `random` alone, so that a run can be resumed."""

    def __len__(self) -> int: ...

    def example(self, index: int, random: np.random.Generator) -> Example: ...


@dataclass(frozen=True)
class Task:
    """A network of transformers, which returns `loss` and `logits` for a batch, and its data."""

    model: Callable[[], nn.Module]
    """Builds the network under the seed that is set."""
    training: Source
    validation: Source
    collate: Callable[[list[Example]], Batch] = torch.utils.data.default_collate
    save: Callable[[pathlib.Path], object] | None = None
    """Adds to the folder of the trained network what belongs to it, such as a tokenizer."""


def split(count: int, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples for training and for validation. Every run divides them in the same way."""
    order = np.random.default_rng(0).permutation(count)
    cut = max(1, round(count * held_out))
    return order[cut:], order[:cut]


def pad(examples: Sequence[Example], padding: Mapping[str, int]) -> Batch:
    """Stacks examples whose tensors differ in length. Those that `padding` does not name are filled with zeros."""
    filling = {"labels": IGNORED, **padding}
    return {
        name: nn.utils.rnn.pad_sequence(
            [example[name] for example in examples], batch_first=True, padding_value=filling.get(name, 0)
        )
        if examples[0][name].ndim
        else torch.stack([example[name] for example in examples])
        for name in examples[0]
    }
