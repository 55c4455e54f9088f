"""Whatever the tensors and their gradients, the exports and the reference take the same steps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, HealthCheck, settings, strategies as st

import mnemo_compile as mnemo
from mnemo_compile.cell import AbstractCell
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.step import reference

Shapes = tuple[tuple[int, ...], ...]

SHAPES = st.lists(
    st.sampled_from([(), (1,), (2,), (31,), (33,), (97,), (5, 7), (64, 40), (3, 3, 4), (2503,)]), min_size=1, max_size=4
).map(tuple)
HISTORIES = st.lists(
    st.sampled_from(["normal", "zero", "huge", "tiny", "sparse", "nan", "inf"]), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def frozen(freeze_small: Callable[..., FrozenCell]) -> FrozenCell:
    return freeze_small(11)


def gradients(shapes: Shapes, history: Sequence[str], seed: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(seed)

    def one(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        normal = random.normal(size=shape)
        chosen = random.random(shape) < 0.2
        kinds: dict[str, Any] = {
            "normal": normal,
            "zero": np.zeros(shape),
            "huge": 1e12 * normal,
            "tiny": 1e-12 * normal,
            "sparse": np.where(chosen, normal, 0),
            "nan": np.full(shape, np.nan),
            "inf": np.full(shape, np.inf),
        }
        return np.asarray(kinds[kind], np.float32)

    return [[one(kind, shape) for shape in shapes] for kind in history]


def true_run(
    cell: AbstractCell, params: list[np.ndarray], history: list[list[np.ndarray]], **options: Any
) -> list[np.ndarray]:
    layout = reference.layout_of(cell, [value.shape for value in params])
    param, state = reference.pack(layout, [jnp.asarray(value) for value in params]), reference.init(cell, layout)
    advance = jax.jit(lambda param, grad, state: reference.step(cell, layout, param, grad, state, **options))
    for grads in history:
        param, state = advance(param, reference.pack(layout, [jnp.asarray(grad) for grad in grads]), state)
    return [np.asarray(value) for value in reference.unpack(layout, param)]


def assert_same(given: Sequence[np.ndarray], expected: Sequence[np.ndarray], steps: int) -> None:
    for x, y in zip(given, expected, strict=True):
        assert np.linalg.norm(x - y) <= 1e-5 * steps * np.linalg.norm(y) + 1e-12


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=SHAPES,
    history=HISTORIES,
    seed=st.integers(0, 2**16),
    lr=st.sampled_from([0.1, 1.0]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    total_steps=st.sampled_from([None, 3, 100]),
)
def test_torch_takes_the_reference_steps(
    frozen: FrozenCell,
    shapes: Shapes,
    history: list[str],
    seed: int,
    lr: float,
    weight_decay: float,
    total_steps: int | None,
) -> None:
    grads = gradients(shapes, history, seed)
    params = [np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32) for shape in shapes]
    expected = true_run(
        frozen.cell(), params, grads, lr=lr, weight_decay=weight_decay, total_steps=float(total_steps or 0)
    )
    tensors = [torch.nn.Parameter(torch.tensor(value)) for value in params]
    make: Any = mnemo.to_torch(frozen)
    optimizer = make(tensors, lr=lr, weight_decay=weight_decay, total_steps=total_steps, block_size=256)
    for step in grads:
        for tensor, grad in zip(tensors, step, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step()
    assert_same([tensor.detach().numpy() for tensor in tensors], expected, len(history))
    assert optimizer.skipped_steps == sum(kind in ("nan", "inf") for kind in history)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=SHAPES, history=HISTORIES, seed=st.integers(0, 2**16), total_steps=st.sampled_from([None, 100]))
def test_optax_takes_the_reference_steps(
    frozen: FrozenCell, shapes: Shapes, history: list[str], seed: int, total_steps: int | None
) -> None:
    grads = gradients(shapes, history, seed)
    params = [np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32) for shape in shapes]
    expected = true_run(frozen.cell(), params, grads, total_steps=float(total_steps or 0))
    transformation = mnemo.to_optax(frozen)(total_steps=total_steps, block_size=512)
    tree: Any = [jnp.asarray(value) for value in params]
    state = transformation.init(tree)
    update = jax.jit(transformation.update)
    for step in grads:
        updates, state = update([jnp.asarray(grad) for grad in step], state, tree)
        tree = jax.tree.map(jnp.add, tree, updates)
    assert_same([np.asarray(value) for value in tree], expected, len(history))
