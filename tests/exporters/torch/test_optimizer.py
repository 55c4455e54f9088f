"""The torch export behaves as a torch optimizer does, on any parameters."""

import copy
import io
import pickle
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHAPES = st.sampled_from([(), (1,), (7,), (64,), (101,), (3, 5), (0,), (4, 0), (64, 70), (2, 3, 4, 5), (4099,)])


def parameters(shapes: list[tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: Any, params: Sequence[Tensor], steps: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
    return [param.detach().clone() for param in params]


def assert_close(left: list[Tensor], right: list[Tensor], bound: float) -> None:
    for x, y in zip(left, right, strict=True):
        assert float(torch.linalg.vector_norm(x - y)) <= bound * float(torch.linalg.vector_norm(y)) + 1e-12


@settings(max_examples=10, deadline=None)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=6), block_size=st.sampled_from([1, 64, 1000, 4096, 10**6]))
def test_every_block_size_gives_the_same_update(
    torch_package: ModuleType, shapes: list[tuple[int, ...]], block_size: int
) -> None:
    results = []
    for size in (65536, block_size):
        params = parameters(shapes)
        results.append(train(torch_package.Mnemosyne(params, block_size=size), params, 3))
    assert_close(results[0], results[1], 1e-5)


@settings(max_examples=10, deadline=None)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=6))
def test_tensors_together_equal_tensors_one_by_one(torch_package: ModuleType, shapes: list[tuple[int, ...]]) -> None:
    together, alone = parameters(shapes), parameters(shapes)
    optimizer = torch_package.Mnemosyne(together, total_steps=10)
    optimizers = [torch_package.Mnemosyne([param], total_steps=10) for param in alone]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for left, right, single in zip(together, alone, optimizers, strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
            single.step()
        optimizer.step()
    assert_close([p.detach() for p in together], [p.detach() for p in alone], 1e-5)


def test_a_saved_state_resumes_exactly(torch_package: ModuleType) -> None:
    shapes = [(64, 70), (9,), ()]
    params = parameters(shapes, dtype=torch.bfloat16)
    optimizer = torch_package.Mnemosyne(params, total_steps=20)
    train(optimizer, params, 4)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": [param.detach() for param in params]}, file)
    expected = train(optimizer, params, 4, seed=2)

    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed = [torch.nn.Parameter(value) for value in saved["params"]]
    other = torch_package.Mnemosyne(resumed)
    other.load_state_dict(saved["optimizer"])
    for left, right in zip(train(other, resumed, 4, seed=2), expected, strict=True):
        assert torch.equal(left, right)
    assert all(value.dtype == torch.float32 for state in other.state.values() for value in state.values())


def test_a_deep_copy_goes_on_by_itself(torch_package: ModuleType) -> None:
    params = parameters([(30,), (8, 9)])
    optimizer = torch_package.Mnemosyne(params)
    train(optimizer, params, 2)
    other_params, other = copy.deepcopy((params, optimizer))
    before = [param.detach().clone() for param in params]
    copied = train(other, other_params, 3, seed=5)
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    for left, right in zip(train(optimizer, params, 3, seed=5), copied, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(torch_package: ModuleType, bad: float) -> None:
    params = parameters([(40,), (64, 70)])
    optimizer = torch_package.Mnemosyne(params, weight_decay=0.1)
    train(optimizer, params, 2)
    before = [param.detach().clone() for param in params]
    state = copy.deepcopy(optimizer.state_dict())
    for param in params:
        param.grad = torch.ones_like(param)
    params[1].grad[3, 3] = bad  # pyright: ignore[reportOptionalSubscript]
    optimizer.step()
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    for key, values in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state["state"][key][name]) for name, value in values.items())
    assert optimizer.skipped_steps == 1
    assert int(optimizer.param_groups[0]["step"]) == 2


@settings(max_examples=10, deadline=None)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=4), exponent=st.integers(-6, 6))
def test_the_scale_of_the_loss_does_not_matter(
    torch_package: ModuleType, shapes: list[tuple[int, ...]], exponent: int
) -> None:
    results = []
    for factor in (1.0, 10.0**exponent):
        params = parameters(shapes)
        optimizer = torch_package.Mnemosyne(params)
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            for param in params:
                param.grad = factor * torch.randn(param.shape, generator=generator)
            optimizer.step()
        results.append([param.detach() for param in params])
    assert_close(results[0], results[1], 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_floating_dtype_follows_float32(torch_package: ModuleType, dtype: torch.dtype) -> None:
    reference, params = parameters([(33,), (64, 66)]), parameters([(33,), (64, 66)], dtype=dtype)
    expected = train(torch_package.Mnemosyne(reference), reference, 1)
    given_ = train(torch_package.Mnemosyne(params), params, 1)
    assert all(value.dtype == dtype for value in given_)
    bound = {torch.bfloat16: 5e-3, torch.float16: 1e-3}.get(dtype, 1e-5)
    assert_close([value.float() for value in given_], expected, bound)


def test_memory_layout_does_not_matter(torch_package: ModuleType) -> None:
    plain = parameters([(64, 70)])
    turned = [torch.nn.Parameter(plain[0].detach().t().contiguous().t())]
    assert not turned[0].is_contiguous()
    expected = train(torch_package.Mnemosyne(plain, block_size=1024), plain, 2)
    given_ = train(torch_package.Mnemosyne(turned, block_size=1024), turned, 2)
    assert_close(given_, expected, 1e-6)


def test_parameters_without_gradient_stay(torch_package: ModuleType) -> None:
    params = parameters([(5,), (6,), (0,)])
    optimizer = torch_package.Mnemosyne(params)
    params[0].grad = torch.ones(5)
    before = params[1].detach().clone()
    optimizer.step()
    assert torch.equal(params[1], before)
    params[0].grad = None
    optimizer.step()


def test_groups_have_rates_of_their_own(torch_package: ModuleType) -> None:
    left, right, third = parameters([(50,), (50,), (50,)])
    optimizer = torch_package.Mnemosyne([{"params": [left]}, {"params": [right], "lr": 0.0}])
    optimizer.add_param_group({"params": [third], "lr": 0.5})
    before = [value.detach().clone() for value in (left, right, third)]
    with torch.no_grad():
        right.copy_(left)
        third.copy_(left)
    before = left.detach().clone()
    for value in (left, right, third):
        value.grad = torch.linspace(-1, 1, 50)
    optimizer.step()
    assert torch.equal(right, before)
    torch.testing.assert_close(third - before, 0.5 * (left - before))


def test_schedulers_set_the_rate(torch_package: ModuleType) -> None:
    (param,) = parameters([(50,)])
    optimizer = torch_package.Mnemosyne([param])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
    train(optimizer, [param], 1)
    scheduler.step()
    before = param.detach().clone()
    assert torch.equal(train(optimizer, [param], 1)[0], before)


def test_a_closure_is_called_with_gradients_on(torch_package: ModuleType) -> None:
    (param,) = parameters([(50,)])
    optimizer = torch_package.Mnemosyne([param])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    last = first = optimizer.step(closure)
    for _ in range(30):
        last = optimizer.step(closure)
    assert last < first


def test_sparse_gradients_are_refused_by_name(torch_package: ModuleType) -> None:
    embedding = torch.nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0, shape \(10, 4\), is sparse"):
        torch_package.Mnemosyne(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr of group 0 must be a finite number of at least 0, not -1.0"),
        ({"lr": float("nan")}, "lr of group 0 must be"),
        ({"lr": torch.tensor(-1.0)}, "lr of group 0 must be"),
        ({"lr": torch.ones(2)}, "lr of group 0 must be one number"),
        ({"weight_decay": -0.1}, "weight_decay of group 0 must be"),
        ({"total_steps": 0}, "total_steps of group 0 must be"),
        ({"total_steps": 1.5}, "total_steps of group 0 must be"),
        ({"block_size": 0}, "block_size counts"),
    ],
)
def test_options_that_make_no_sense_are_refused(torch_package: ModuleType, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch_package.Mnemosyne(parameters([(3,)]), **options)


def test_parameters_that_cannot_be_trained_are_refused(torch_package: ModuleType) -> None:
    with pytest.raises(ValueError, match="no parameters to train; pass"):
        torch_package.Mnemosyne([])
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 has dtype torch\.int64.*leave it out"):
        torch_package.Mnemosyne([torch.zeros(3, dtype=torch.int64)])


def test_the_state_of_another_optimizer_is_refused(torch_package: ModuleType) -> None:
    params = parameters([(3,)])
    optimizer = torch_package.Mnemosyne(params)
    with pytest.raises(
        ValueError, match=r"group 0 of this state was saved by another optimizer, and this is small-cell"
    ):
        optimizer.load_state_dict(torch.optim.AdamW(params).state_dict())
    other = copy.deepcopy(optimizer.state_dict())
    other["param_groups"][0]["cell"] = {"name": "elder-cell", "version": "0.9.0", "digest": "0123456789abcdef"}
    with pytest.raises(
        ValueError, match=r"saved by elder-cell 0\.9\.0 \(digest 0123456789ab\), and this is small-cell 1\.0\.0"
    ):
        optimizer.load_state_dict(other)


@pytest.mark.parametrize("slot", ["fast", "recall"])
def test_a_state_of_another_shape_is_refused_and_changes_nothing(torch_package: ModuleType, slot: str) -> None:
    params = parameters([(3,), (4, 5)])
    optimizer = torch_package.Mnemosyne(params)
    train(optimizer, params, 1)
    kept = optimizer.state[params[1]][slot]
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][1][slot] = torch.zeros(4, 6)
    with pytest.raises(ValueError, match=rf"{slot} of parameter 1 of group 0 has shape \(4, 6\) in this state where"):
        optimizer.load_state_dict(state)
    assert optimizer.state[params[1]][slot] is kept
    del state["state"][1][slot]
    with pytest.raises(ValueError, match="the state of parameter 1 of group 0 holds"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_state_is_kept_whole_for_parameters_of_another_dtype(torch_package: ModuleType, dtype: torch.dtype) -> None:
    params = parameters([(33,), (5, 7)])
    optimizer = torch_package.Mnemosyne(params)
    train(optimizer, params, 3)
    others = [torch.nn.Parameter(param.detach().to(dtype)) for param in params]
    other = torch_package.Mnemosyne(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param, cast in zip(params, others, strict=True):
        for name, value in optimizer.state[param].items():
            assert torch.equal(other.state[cast][name].to(value.dtype), value)
    assert int(other.param_groups[0]["step"]) == 3


def test_a_pickled_optimizer_goes_on_exactly(torch_package: ModuleType) -> None:
    params = parameters([(30,), (8, 9)])
    optimizer = torch_package.Mnemosyne(params, total_steps=9, block_size=64)
    train(optimizer, params, 2)
    resumed_params, resumed = pickle.loads(pickle.dumps((params, optimizer)))
    expected = train(optimizer, params, 3, seed=5)
    for left, right in zip(train(resumed, resumed_params, 3, seed=5), expected, strict=True):
        assert torch.equal(left, right)


def test_a_group_that_comes_later_keeps_the_clock(torch_package: ModuleType) -> None:
    params = parameters([(30,), (8, 9)])
    optimizer = torch_package.Mnemosyne(params[:1], total_steps=9)
    train(optimizer, params[:1], 2)
    optimizer.add_param_group({"params": [params[1]], "lr": 0.5})
    train(optimizer, params, 2)
    assert int(optimizer.param_groups[0]["step"]) == 4
    expected = copy.deepcopy(params)
    resumed = torch_package.Mnemosyne([{"params": [expected[0]]}, {"params": [expected[1]]}])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for left, right in zip(train(resumed, expected, 2), train(optimizer, params, 2), strict=True):
        assert torch.equal(left, right)
    with pytest.raises(ValueError, match="lr of group 2 must be"):
        optimizer.add_param_group({"params": parameters([(2,)]), "lr": -1.0})
    assert len(optimizer.param_groups) == 2


def _sequence(optimizer: Any) -> Any:
    schedules = torch.optim.lr_scheduler
    warmup = schedules.LinearLR(optimizer, 0.1, total_iters=2)
    return schedules.SequentialLR(optimizer, [warmup, schedules.CosineAnnealingLR(optimizer, 4)], milestones=[2])


@pytest.mark.parametrize("lr", [0.5, torch.tensor(0.5)])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=8, cycle_momentum=False),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
        _sequence,
    ],
)
def test_torchs_schedulers_move_the_step(torch_package: ModuleType, schedule: Any, lr: Any) -> None:
    """The same as setting by hand what the scheduler set."""
    params = parameters([(50,)])
    expected = copy.deepcopy(params)
    optimizer = torch_package.Mnemosyne(params, lr=copy.deepcopy(lr))
    by_hand = torch_package.Mnemosyne(expected)
    scheduler = schedule(optimizer)
    rates = []
    for _ in range(5):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        by_hand.param_groups[0]["lr"] = rates[-1]
        for left, right in zip(
            train(optimizer, params, 1, seed=len(rates)), train(by_hand, expected, 1, seed=len(rates)), strict=True
        ):
            assert torch.equal(left, right)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
    assert len(set(rates)) > 1


def test_a_gradient_scaler_works_as_with_adamw(torch_package: ModuleType) -> None:
    params = parameters([(50,)])
    expected = copy.deepcopy(params)
    optimizer, plain = torch_package.Mnemosyne(params), torch_package.Mnemosyne(expected)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # pyright: ignore[reportPrivateImportUsage]
    for step in range(3):
        scaler.scale((params[0] ** 2).sum()).backward()
        if step == 1:
            params[0].grad = torch.full((50,), torch.inf)
        else:
            expected[0].grad = 2 * expected[0].detach()
            plain.step()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert torch.equal(params[0], expected[0])


class _Allocations(TorchDispatchMode):
    """The largest storage that an operation makes."""

    def __init__(self, known: Sequence[Tensor]):
        super().__init__()
        self.known = {value.untyped_storage().data_ptr() for value in known}
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
def test_no_array_is_larger_than_a_few_blocks(torch_package: ModuleType, dtype: torch.dtype, turned: bool) -> None:
    params = parameters([(400, 1000), (40,), (7, 3001)], dtype=dtype)
    if turned:
        params[0] = torch.nn.Parameter(params[0].detach().t().contiguous().t())
    optimizer = torch_package.Mnemosyne(params, block_size=1024)
    train(optimizer, params, 1)
    kept = [value for state in optimizer.state.values() for value in state.values()]
    with _Allocations([*params, *(param.grad for param in params if param.grad is not None), *kept]) as allocations:
        optimizer.step()
    # A tile has 100 × 125 coordinates, and a block holds at least one.
    assert 0 < allocations.largest <= 8 * 4 * 12500
