"""Every tensor of a network has a name, which tells its role."""

import math
from typing import Any

import pytest

from mnemo_compile.step import describe, Role
from tests.meta.tasks.families import FAMILIES, family_of

ROLE_OF: dict[str, Role] = {
    "bias": "vector", "norm": "vector", "norm1": "vector", "norm2": "vector", "norms": "vector",
    "token_embedding": "embedding", "position_embedding": "embedding", "embedding": "embedding",
    "conv": "convolution", "conv1": "convolution", "conv2": "convolution", "head": "head",
    "patch_embedding": "matrix", "mlp": "matrix", "qkv": "matrix", "out": "matrix", "up": "matrix", "down": "matrix",
    "weight_ih": "matrix", "weight_hh": "matrix", "net": "matrix", "linear": "matrix", "layers": "matrix",
    "first": "matrix", "linear1": "matrix", "linear2": "matrix", "convs": "convolution", "conv3": "convolution",
    "frequency_embedding": "embedding", "number_embedding": "embedding", "number_bias": "vector",
}  # fmt: skip
"""By the last part of a name that is neither a number nor `weight` nor `kernel`."""


@pytest.mark.parametrize(
    "config", [config for config in FAMILIES if "network" in config], ids=lambda config: family_of(config).name
)
def test_the_name_of_every_tensor_tells_its_role(config: dict[str, Any]) -> None:
    family = family_of(config)
    names = [tensor.name for tensor in family.tensors]
    assert len(set(names)) == len(names)
    for tensor in family.tensors:
        part = [part for part in tensor.name.split(".") if part not in ("weight", "kernel") and not part.isdigit()][-1]
        role, axes, _ = describe(tensor.shape, name=tensor.name)
        has_one_axis = sum(size > 1 for size in tensor.shape) < 2
        assert role == ("vector" if has_one_axis else ROLE_OF[part]), tensor
        if role == "convolution":
            assert axes is not None
            assert axes.sizes == (1, tensor.shape[-1], math.prod(tensor.shape[:-1]))
        if part == "qkv":
            width = tensor.shape[0]
            assert axes is not None
            assert axes.sizes == (3, width, width)
