"""timm, which needs torchvision: `python -m tests.versions --only timm` has an environment for it."""

import importlib
from typing import Any

import pytest
import torch

from mnemo_compile.step import describe

timm: Any = pytest.importorskip("timm")


def network() -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, depth=2, num_classes=10)


def train(model: Any, optimizer: Any, steps: int) -> tuple[float, float]:
    """The first and the last loss on one batch."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_names_lead_to_roles_and_the_network_learns(Mnemosyne: Any) -> None:
    model = network()
    roles = {name: describe(tuple(param.shape), name=name).role for name, param in model.named_parameters()}
    assert roles["patch_embed.proj.weight"] == "convolution" and roles["head.weight"] == "head"
    assert roles["blocks.0.attn.qkv.weight"] == roles["blocks.0.mlp.fc1.weight"] == "matrix"
    assert roles["pos_embed"] == "embedding" and roles["cls_token"] == "vector"
    first, last = train(model, Mnemosyne(model.named_parameters(), total_steps=20), 20)
    assert last < first / 4


def test_groups_of_timm_decay_what_they_say(Mnemosyne: Any) -> None:
    """`param_group_fn` of timm gives groups in which vectors do not decay."""
    model = network()
    optim: Any = importlib.import_module("timm.optim")
    groups = optim.param_groups_weight_decay(model, weight_decay=0.05)
    optimizer = Mnemosyne(groups, total_steps=20)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.05]
    first, last = train(model, optimizer, 20)
    assert last < first / 4
