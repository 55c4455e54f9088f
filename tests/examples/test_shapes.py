"""Networks by shape have the sizes that were published."""

import pytest
import torch
import transformers
from torch import nn

from examples.recipes import t5_config, vit_config


def millions(model: nn.Module) -> float:
    return sum(param.numel() for param in model.parameters()) / 1e6


@pytest.mark.parametrize(
    ("shape", "size"), [("vit-base", 86), ("vit-large", 304), ("vit-huge", 632), ("vit-36x16", 709)]
)
def test_vision_transformers(shape: str, size: int) -> None:
    with torch.device("meta"):
        assert millions(transformers.ViTForImageClassification(vit_config(shape, 10))) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "size"), [("t5-small", 77), ("t5-base", 248), ("t5-large", 783), ("t5-xl", 2850), ("t5-xxl", 11135)]
)
def test_t5(shape: str, size: int) -> None:
    config = t5_config(shape, 32128, 0.1)
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    # transformers 5 gives a new network one matrix for embedding and head, where the published ones have two.
    head = 0 if model.lm_head.weight is not model.shared.weight else model.shared.weight.numel() / 1e6
    assert millions(model) + head == pytest.approx(size, rel=0.01)
