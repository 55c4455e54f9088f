"""Matrices are stepped by tiles, as the reference does, whatever their layout, names, blocks and precision."""

import copy
import io
import logging
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from mnemo_compile.step import reference
from tests.cells import cell_of
from tests.helpers import jitted_step

Shape = tuple[int, ...]

CELL = cell_of("prior")
NAMED: dict[str, Shape] = {
    "encoder.attention.c_attn.weight": (48, 16),
    "encoder.attention.c_attn.bias": (48,),
    "mlp.fc.weight": (40, 17),
    "mlp.down_proj.weight": (33, 16),
    "wte.weight": (20, 16),
    "conv.weight": (6, 5, 3, 3),
    "experts.up.weight": (3, 20, 18),
    "lm_head.weight": (20, 16),
    "lora_A.weight": (2, 40),
}
"""Parameters of every role, with tiles of several shapes."""
SHAPES = st.sampled_from([(), (5,), (33,), (3, 5), (16, 16), (17, 16), (33, 20), (5, 70), (1, 9), (9, 1), (4, 3, 3, 3)])


def draws(shapes: Sequence[Shape], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.asarray(random.normal(size=shape), np.float32) for shape in shapes]


def plain(values: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.nn.Parameter(torch.tensor(value).to(dtype)) for value in values]


def train(optimizer: Any, params: Sequence[Tensor], history: Sequence[Sequence[np.ndarray]]) -> list[Tensor]:
    for grads in history:
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.empty_like(param).copy_(torch.tensor(grad))
        optimizer.step()
    return [param.detach().clone() for param in params]


def assert_close(left: Sequence[Any], right: Sequence[Any], bound: float) -> None:
    for x, y in zip(left, right, strict=True):
        x, y = (np.asarray(value, np.float64) for value in (x, y))
        assert x.shape == y.shape and np.isfinite(x).all()
        assert np.linalg.norm(x - y) <= bound * np.linalg.norm(y) + 1e-12


def expected_of(
    names: Sequence[str] | None, params: Sequence[np.ndarray], history: Sequence[Sequence[np.ndarray]], **options: float
) -> list[jax.Array]:
    layout = reference.layout_of(CELL, [param.shape for param in params], names)
    packed, state = reference.pack(layout, list(map(jnp.asarray, params))), reference.init(CELL, layout)
    hyper = {name: jnp.array(value, jnp.float32) for name, value in options.items()}
    for grads in history:
        packed_grads = reference.pack(layout, list(map(jnp.asarray, grads)))
        packed, state = jitted_step(CELL, layout, packed, packed_grads, state, hyper)
    return reference.unpack(layout, packed)


@pytest.mark.parametrize("block_size", [1, 300, 1000, 10**6])
def test_named_parameters_step_as_the_reference(tiled: ModuleType, block_size: int) -> None:
    params, history = draws(list(NAMED.values()), 0), [draws(list(NAMED.values()), seed) for seed in (1, 2)]
    options = {"lr": 0.7, "weight_decay": 10.0, "total_steps": 9}
    tensors = plain(params)
    optimizer = tiled.Mnemosyne(zip(NAMED, tensors, strict=True), block_size=block_size, pretrained=True, **options)
    actual = train(optimizer, tensors, history)
    assert_close(actual, expected_of(list(NAMED), params, history, pretrained=1.0, **options), 1e-6)


@settings(max_examples=12, deadline=None)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=5), block_size=st.sampled_from([1, 64, 300, 1000, 10**6]))
def test_every_block_size_gives_the_same_update(tiled: ModuleType, shapes: list[Shape], block_size: int) -> None:
    params, history = draws(shapes, 0), [draws(shapes, seed) for seed in (1, 2, 3)]
    results = []
    for size in (10**6, block_size):
        tensors = plain(params)
        results.append(train(tiled.Mnemosyne(tensors, block_size=size), tensors, history))
    assert_close(results[1], results[0], 1e-5)


@settings(max_examples=12, deadline=None)
@given(shape=st.tuples(st.integers(1, 50), st.integers(1, 50)), block_size=st.sampled_from([1, 500, 10**6]))
def test_a_transposed_matrix_gets_the_transposed_update(tiled: ModuleType, shape: Shape, block_size: int) -> None:
    params, history = draws([shape], 0), [draws([shape], seed) for seed in (1, 2)]
    results = []
    for turn in (False, True):
        tensors = plain([param.T if turn else param for param in params])
        optimizer = tiled.Mnemosyne(tensors, block_size=block_size)
        (result,) = train(optimizer, tensors, [[grad.T if turn else grad for grad in grads] for grads in history])
        results.append([result.T if turn else result])
    assert_close(results[1], results[0], 1e-5)


LAYOUTS: dict[str, tuple[str, Shape, Callable[[Tensor], Tensor]]] = {
    "transposed": ("fc.weight", (40, 33), lambda x: x.t().contiguous().t()),
    "strided": ("fc.weight", (40, 33), lambda x: torch.empty(80, 66)[::2, ::2].copy_(x)),
    "channels last": ("conv.weight", (20, 5, 3, 3), lambda x: x.contiguous(memory_format=torch.channels_last)),
    "experts": ("experts.up.weight", (3, 40, 18), lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0)),
    "fused": ("c_attn.weight", (48, 16), lambda x: x.t().contiguous().t()),
    "fused columns": ("c_attn.weight", (16, 48), lambda x: x.t().contiguous().t()),
    "offset": ("fc.weight", (40, 33), lambda x: torch.cat([torch.zeros(7), x.reshape(-1)])[7:].view(40, 33)),
}


@pytest.mark.parametrize("block_size", [1, 600, 10**6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(tiled: ModuleType, layout: str, block_size: int) -> None:
    name, shape, laid_out = LAYOUTS[layout]
    params, history = draws([shape], 0), [draws([shape], seed) for seed in (1, 2)]
    results = []
    for change in (lambda x: x, laid_out):
        tensor = torch.nn.Parameter(change(torch.tensor(params[0])))
        optimizer = tiled.Mnemosyne([(name, tensor)], block_size=block_size)
        results.append(train(optimizer, [tensor], history))
    assert_close(results[1], results[0], 1e-6)
    assert_close(results[1], expected_of([name], params, history), 1e-6)


def test_a_tiled_matrix_stores_its_momentum_and_a_vector(tiled: ModuleType) -> None:
    tensors = plain(draws(list(NAMED.values()), 0))
    optimizer = tiled.Mnemosyne(zip(NAMED, tensors, strict=True))
    train(optimizer, tensors, [draws(list(NAMED.values()), 1)])
    elementwise = {"encoder.attention.c_attn.bias", "wte.weight", "lm_head.weight"}
    for (name, shape), tensor in zip(NAMED.items(), tensors, strict=True):
        state = optimizer.state[tensor]
        assert state.keys() == {"fast", "recall", *(["square"] if name in elementwise else [])}, name
        assert state["fast"].shape == shape and state["recall"].dim() == 1
        assert all(value.dtype == torch.float32 for value in state.values())


def test_a_label_goes_before_the_name_and_the_name_before_the_shape(tiled: ModuleType) -> None:
    def slots(params: Any) -> set[str]:
        optimizer = tiled.Mnemosyne(params)
        param = optimizer.param_groups[0]["params"][0]
        param.grad = torch.ones_like(param)
        optimizer.step()
        return set(optimizer.state[param]) - {"recall"}

    def square() -> Tensor:
        return torch.nn.Parameter(torch.ones(16, 16))

    assert slots([square()]) == {"fast"}
    assert slots([("wte.weight", square())]) == {"fast", "square"}
    assert slots([{"params": [("wte.weight", square())], "role": "matrix"}]) == {"fast"}
    assert slots([{"params": [("fc.weight", square())], "role": "head"}]) == {"fast", "square"}


def test_a_saved_state_resumes_exactly_with_its_names(tiled: ModuleType) -> None:
    names = ["wte.weight", "fc.weight"]
    params = draws([(20, 16), (40, 17)], 0)
    history = [draws([(20, 16), (40, 17)], seed) for seed in range(1, 5)]
    tensors = plain(params)
    optimizer = tiled.Mnemosyne(zip(names, tensors, strict=True), total_steps=9)
    resumed = plain([value.numpy() for value in train(optimizer, tensors, history[:2])])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    other = tiled.Mnemosyne(zip(names, resumed, strict=True))
    other.load_state_dict(saved)
    for left, right in zip(train(other, resumed, history[2:]), train(optimizer, tensors, history[2:]), strict=True):
        assert torch.equal(left, right)
    copied, copied_params = copy.deepcopy((optimizer, tensors))
    copied.load_state_dict(saved)
    # Without names, the embedding looks like a matrix, which has no second moment.
    saved["param_groups"][0].pop("param_names")
    unnamed = tiled.Mnemosyne(plain(params))
    with pytest.raises(ValueError, match="the state of parameter 0 of group 0 holds fast, recall, square where fast"):
        unnamed.load_state_dict(saved)


@pytest.mark.parametrize(
    "made",
    [
        lambda shape: np.zeros(shape),
        lambda shape: np.outer(np.ones(shape[0]), np.linspace(-1, 1, shape[1])),
        lambda shape: 1e-30 * np.random.default_rng(0).normal(size=shape),
        lambda shape: 1e15 * np.random.default_rng(0).normal(size=shape),
        lambda shape: np.linspace(1, 1e-8, shape[0])[:, None] * np.random.default_rng(0).normal(size=shape),
    ],
    ids=["zeros", "rank one", "tiny", "huge", "condition"],
)
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (33, 33), (16, 40)])
def test_a_degenerate_gradient_gives_the_reference_step(tiled: ModuleType, made: Any, shape: Shape) -> None:
    params, history = draws([shape], 0), [[np.asarray(made(shape), np.float32)]] * 2
    tensors = plain(params)
    actual = train(tiled.Mnemosyne([("fc.weight", tensors[0])]), tensors, history)
    assert_close(actual, expected_of(["fc.weight"], params, history), 1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_no_tile(tiled: ModuleType, bad: float) -> None:
    shapes = [(33, 20), (16, 16)]
    tensors = plain(draws(shapes, 0))
    optimizer = tiled.Mnemosyne(tensors, weight_decay=0.1)
    before = train(optimizer, tensors, [draws(shapes, 1)])
    state = copy.deepcopy(optimizer.state_dict()["state"])
    grads = draws(shapes, 2)
    grads[0][32, 19] = bad
    assert all(map(torch.equal, train(optimizer, tensors, [grads]), before))
    for place, values in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state[place][key]) for key, value in values.items())
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_follows_float32(tiled: ModuleType, dtype: torch.dtype) -> None:
    shapes = [(33, 20), (16, 16), (5,)]
    params = [param.to(dtype).float().numpy() for param in map(torch.tensor, draws(shapes, 0))]
    history = [[grad.to(dtype).float().numpy() for grad in map(torch.tensor, draws(shapes, 1))]]
    results = []
    for each in (torch.float32, dtype):
        tensors = plain(params, each)
        results.append(train(tiled.Mnemosyne(tensors), tensors, history))
    assert all(value.dtype == dtype for value in results[1])
    bound = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float64: 1e-5}[dtype]
    assert_close([value.double() for value in results[1]], results[0], bound)


def test_products_of_bfloat16_stay_within_a_bound_and_are_not_those_of_float32(tiled: ModuleType) -> None:
    shapes = [(48, 48), (16, 40)]
    params, grads = draws(shapes, 0), draws(shapes, 1)
    steps = {}
    for precision in ("float32", "tf32", "bfloat16", None):
        tensors = plain(params)
        moved = train(tiled.Mnemosyne(tensors, precision=precision), tensors, [grads])
        steps[precision] = [new - torch.tensor(old) for new, old in zip(moved, params, strict=True)]
    for narrow, exact, default, tf32 in zip(
        *(steps[key] for key in ("bfloat16", "float32", None, "tf32")), strict=True
    ):
        assert torch.equal(exact, default) and torch.equal(exact, tf32)
        difference = torch.linalg.vector_norm(narrow - exact) / torch.linalg.vector_norm(exact)
        assert 1e-5 < float(difference) < 0.03
    doubles = [plain(params, torch.float64) for _ in range(2)]
    for tensors, precision in zip(doubles, ("bfloat16", None), strict=True):
        train(tiled.Mnemosyne(tensors, precision=precision), tensors, [grads])
    assert all(map(torch.equal, *doubles))


def test_neither_autocast_nor_defaults_nor_matmul_precision_change_a_step(tiled: ModuleType) -> None:
    shapes = [(33, 20), (16, 16), (5,)]
    params, history = draws(shapes, 0), [draws(shapes, 1)]
    tensors = plain(params)
    expected = train(tiled.Mnemosyne(tensors), tensors, history)
    tensors = plain(params)
    optimizer = tiled.Mnemosyne(tensors)
    for tensor, grad in zip(tensors, history[0], strict=True):
        tensor.grad = torch.tensor(grad)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, [tensor.detach() for tensor in tensors], expected))


@pytest.mark.parametrize("choice", ["highest", "high", "medium"])
def test_the_users_matmul_precision_is_not_ours_and_comes_back(
    tiled: ModuleType, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    seen = []
    product = torch.bmm

    def spy(*args: Any, **options: Any) -> Tensor:
        seen.append(tiled._precision._settings())
        return product(*args, **options)

    monkeypatch.setattr(torch, "bmm", spy)
    tensors = plain(draws([(16, 16)], 0))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(choice)
    try:
        settings_before = tiled._precision._settings()
        train(tiled.Mnemosyne(tensors), tensors, [draws([(16, 16)], 1)])
        assert tiled._precision._settings() == settings_before
        assert torch.get_float32_matmul_precision() == choice
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen and all(set(each) <= {"ieee", "none", "highest"} for each in seen)


def test_one_line_lists_ambiguous_parameters(tiled: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    def odd() -> Tensor:
        return torch.nn.Parameter(torch.ones(40, 50, 60))

    with caplog.at_level(logging.WARNING):
        optimizer = tiled.Mnemosyne([("mixer.mass", odd()), ("fc.weight", torch.nn.Parameter(torch.ones(4, 4)))])
        assert len(caplog.records) == 1 and "mixer.mass (40, 50, 60)" in caplog.text and "fc" not in caplog.text
        optimizer.add_param_group({"params": [("mixer.other", odd())], "role": "matrix"})
        assert len(caplog.records) == 1
        optimizer.add_param_group({"params": [("mixer.third", odd())]})
        assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision must be one of bfloat16, tf32, float32, or None .* not 'float16'"),
        ({"pretrained": "yes"}, "pretrained of group 0 must be True, False, or None .* not 'yes'"),
    ],
)
def test_options_that_make_no_sense_are_refused(tiled: ModuleType, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiled.Mnemosyne(plain(draws([(3, 4)], 0)), **options)


def test_a_label_that_does_not_fit_is_refused(tiled: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"role 'convolution' needs 3 axes or more, and x of shape \(3, 4\) has 2"):
        tiled.Mnemosyne([{"params": [("x", torch.nn.Parameter(torch.ones(3, 4)))], "role": "convolution"}])


def test_weight_decay_means_what_it_means_to_adamw(tiled: ModuleType) -> None:
    """Without a horizon, the schedule is 1, and the decay is that of AdamW at its customary rate of 1e-3."""
    moved = []
    for decay in (0.0, 0.5):
        tensors = plain(draws([(16, 16), (5,)], 0))
        optimizer = tiled.Mnemosyne(tensors, weight_decay=decay)
        train(optimizer, tensors, [draws([(16, 16), (5,)], seed) for seed in range(1, 3)][:1])
        moved.append([tensor.detach() for tensor in tensors])
    growth = float((moved[0][1] - moved[1][1]).norm()) / float(torch.tensor(draws([(16, 16), (5,)], 0)[1]).norm())
    assert 0 < growth <= 0.5 * 1e-3 * 1.001


def test_a_transformer_learns(tiled: ModuleType) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(16, 32),
        torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True),
        torch.nn.Linear(32, 16),
    )
    optimizer = tiled.Mnemosyne(model.named_parameters(), total_steps=60)
    tokens = torch.randint(16, (8, 12))
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
