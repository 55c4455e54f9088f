"""A step is one step, whatever surrounds it, and what it keeps goes with the optimizer."""

import contextlib
import gc
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

SHAPES = [(40,), (33, 20), (6, 5, 3, 3), (20, 16), ()]


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(params: Sequence[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def train(optimizer: Any, params: Sequence[Tensor], seeds: Sequence[int]) -> list[Tensor]:
    for seed in seeds:
        give_gradients(params, seed)
        optimizer.step()
    return [param.detach().clone() for param in params]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "inference mode": lambda: torch.inference_mode(),
    "gradients on": lambda: torch.enable_grad(),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("surrounded", [(0,), (1,), (0, 1, 2)], ids=["first", "later", "all"])
def test_a_step_is_the_same_whatever_surrounds_it(
    tiled: ModuleType, around: Callable[[], contextlib.AbstractContextManager[Any]], surrounded: tuple[int, ...]
) -> None:
    plain, params = parameters(), parameters()
    expected = train(tiled.Mnemosyne(plain, total_steps=4), plain, range(3))
    with around() if 0 in surrounded else contextlib.nullcontext():
        optimizer = tiled.Mnemosyne(params, total_steps=4)
    for step in range(3):
        give_gradients(params, step)
        with around() if step in surrounded else contextlib.nullcontext():
            optimizer.step()
    assert all(torch.equal(param, value) for param, value in zip(params, expected, strict=True))
    assert not any(value.requires_grad for state in optimizer.state.values() for value in state.values())


def test_deterministic_algorithms_write_tensors_of_any_strides(tiled: ModuleType) -> None:
    shape = (20, 30, 3, 3)
    results = []
    for is_turned in (False, True):
        (param,) = parameters([shape])
        if is_turned:
            param = torch.nn.Parameter(param.detach().to(memory_format=torch.channels_last))
        optimizer = tiled.Mnemosyne([("conv.weight", param)], block_size=1000)
        with deterministic():
            results += train(optimizer, [param], range(2))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def test_a_fake_step_leaves_nothing_behind(tiled: ModuleType) -> None:
    """Estimates of memory run a step with fake tensors first."""
    tiled._step._WEIGHTS.clear()
    with FakeTensorMode():
        fake = [torch.nn.Parameter(torch.empty(shape)) for shape in SHAPES]
        optimizer = tiled.Mnemosyne(fake, total_steps=3)
        for param in fake:
            param.grad = torch.empty_like(param)
        optimizer.step()
        assert optimizer.state[fake[1]]["fast"].shape == SHAPES[1]
    params, plain = parameters(), parameters()
    moved = train(tiled.Mnemosyne(params), params, range(2))
    tiled._step._WEIGHTS.clear()
    for left, right in zip(moved, train(tiled.Mnemosyne(plain), plain, range(2)), strict=True):
        assert torch.equal(left, right)


def test_parameters_may_be_made_real_after_the_optimizer(tiled: ModuleType) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = torch.nn.Linear(20, 17, device="meta")
        optimizer = tiled.Mnemosyne(model.parameters(), total_steps=4)
        model.to_empty(device="cpu")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    plain = parameters([(17, 20), (17,)])
    with torch.no_grad():
        for param, value in zip(model.parameters(), plain, strict=True):
            param.copy_(value)
    expected = train(tiled.Mnemosyne(plain, total_steps=4), plain, range(2))
    for left, right in zip(train(optimizer, list(model.parameters()), range(2)), expected, strict=True):
        assert torch.equal(left, right)


def test_integers_may_be_those_of_numpy(tiled: ModuleType) -> None:
    plain, params = parameters(), parameters()
    expected = train(tiled.Mnemosyne(plain, total_steps=4, block_size=300), plain, range(3))
    numbers: Any = {
        "total_steps": np.int64(4),
        "block_size": np.int32(300),
        "lr": np.float32(1),
        "weight_decay": np.float64(0),
    }
    for left, right in zip(train(tiled.Mnemosyne(params, **numbers), params, range(3)), expected, strict=True):
        assert torch.equal(left, right)
    with pytest.raises(ValueError, match="total_steps of group 0 must be a positive integer"):
        tiled.Mnemosyne(parameters(), total_steps=True)


def test_data_may_be_swapped_for_others_of_their_kind(tiled: ModuleType) -> None:
    plain, params = parameters(), parameters()
    expected = train(tiled.Mnemosyne(plain), plain, range(4))
    optimizer = tiled.Mnemosyne(params)
    train(optimizer, params, range(2))
    for param in params:
        # As wrappers do that move parameters into buffers of their own.
        param.data = param.data.clone().t().contiguous().t() if param.dim() == 2 else param.data.clone()
    for left, right in zip(train(optimizer, params, range(2, 4)), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(
        st.lists(st.integers(1, 40), max_size=3).map(tuple).filter(lambda shape: np.prod(shape, dtype=int) >= 64),
        min_size=1,
        max_size=5,
    ),
    block_size=st.sampled_from([100, 1000, 10**6]),
)
def test_a_plan_keeps_less_than_a_byte_per_parameter_in_arrays(
    tiled: ModuleType, shapes: list[tuple[int, ...]], block_size: int
) -> None:
    """Beside a few numbers per tensor. Chunks of this cell have 8 coordinates, a quarter of those of models."""
    params = parameters(shapes)
    optimizer = tiled.Mnemosyne(params, block_size=block_size)
    train(optimizer, params, [0])
    ((_, plan),) = optimizer._plans
    arrays = {id(value): value.nbytes for value in _tensors_in(plan.partition)}
    assert sum(arrays.values()) < 4 * sum(param.numel() for param in params) + 100 * len(params)


def _tensors_in(thing: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (dict, list, tuple)):
        for value in thing.values() if isinstance(thing, dict) else thing:
            yield from _tensors_in(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from _tensors_in(vars(thing), seen)


def test_plans_are_few_and_go_with_the_optimizer(tiled: ModuleType) -> None:
    params = parameters([(50 + size,) for size in range(20)])
    optimizer = tiled.Mnemosyne(params)
    made: list[weakref.ref[Any]] = []
    chosen = random.Random(0)
    for _ in range(30):
        for param in params:
            param.grad = torch.ones_like(param) if chosen.random() < 0.5 else None
        optimizer.step()
        ((_, plan),) = optimizer._plans
        made.append(weakref.ref(plan.partition))
        del plan
    gc.collect()
    assert len({ref() for ref in made} - {None}) <= 5
    del optimizer
    gc.collect()
    assert all(ref() is None for ref in made)
