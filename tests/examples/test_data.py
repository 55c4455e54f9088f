"""Examples are what their task says."""

import numpy as np
import pytest
import torch

from examples.pretrain_bert import END, MASK, Masked, START
from examples.recipes import digits, IGNORED, pad, shapes, SpanCorruption, split


@pytest.mark.parametrize("length", [8, 64, 512])
def test_corrupted_spans_put_together_are_the_text(length: int) -> None:
    tokens = torch.arange(200, 200 + length)
    sentinels = range(3, 103)
    example = SpanCorruption(tokens[None], sentinels, 1).example(0, np.random.default_rng(length))
    inputs, labels = example["input_ids"].tolist(), example["labels"].tolist()
    assert (inputs.pop(), labels.pop()) == (1, 1)
    spans: dict[int, list[int]] = {}
    for token in labels:
        if token in sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    restored = [each for token in inputs for each in (spans[token] if token in sentinels else [token])]
    assert restored == tokens.tolist()
    assert sum(map(len, spans.values())) == round(0.15 * length)


def test_masked_places_are_a_seventh_and_the_labels_are_the_text() -> None:
    tokens = torch.arange(100, 1100)[None].repeat(20, 1)
    source = Masked(tokens, 2000)
    examples = [source.example(index, np.random.default_rng(index)) for index in range(20)]
    inputs, labels = (torch.stack([example[name] for example in examples]) for name in ("input_ids", "labels"))
    assert (inputs[:, 0] == START).all() and (inputs[:, -1] == END).all()
    inputs, labels = inputs[:, 1:-1], labels[:, 1:-1]
    chosen = labels != IGNORED
    assert 0.14 < chosen.float().mean() < 0.16
    assert (labels[chosen] == tokens[chosen]).all()
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert 0.77 < (inputs[chosen] == MASK).float().mean() < 0.83
    assert 0.08 < (inputs[chosen] == tokens[chosen]).float().mean() < 0.12


def test_padding_has_no_loss_and_no_attention() -> None:
    batch = pad(
        [
            {"input_ids": torch.tensor([5, 6]), "attention_mask": torch.ones(2), "labels": torch.tensor([7])},
            {"input_ids": torch.tensor([5]), "attention_mask": torch.ones(1), "labels": torch.tensor([7, 8])},
        ],
        {"input_ids": 3},
    )
    assert batch["input_ids"].tolist() == [[5, 6], [5, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [[7, IGNORED], [7, 8]]


def test_a_split_has_each_example_once() -> None:
    trained, held = split(100, 0.2)
    assert len(held) == 20
    assert sorted([*trained, *held]) == list(range(100))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_size_of_the_model(channels: int) -> None:
    for images in (digits(16, channels), shapes(30, 16, channels)):
        example = images.example(0, np.random.default_rng(0))
        assert example["pixel_values"].shape == (channels, 16, 16)
        assert example["pixel_values"].abs().max() < 3
    assert {int(shapes(200, 16, 1).example(index, np.random.default_rng(0))["labels"]) for index in range(200)} == {
        *range(10)
    }
