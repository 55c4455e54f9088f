"""The torch export does what users expect of any optimizer of torch."""

import copy
import io
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

SHAPES = [(5,), (20, 17), (), (4, 3, 2, 2)]

Make = Callable[..., Any]
"""Makes an optimizer of parameters."""


@pytest.fixture(params=["prior", pytest.param("network", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest, package_of: Callable[[str, str], ModuleType]) -> Iterator[Make]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield package_of("torch", request.param).Mnemosyne
    torch.set_num_threads(threads)


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def give_gradients(params: Sequence[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def train(optimizer: Any, params: Sequence[Tensor], seeds: Sequence[int] = range(3)) -> list[Tensor]:
    for seed in seeds:
        give_gradients(params, seed)
        optimizer.step()
    return [param.detach().clone() for param in params]


def assert_equal(left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


def assert_same_state(left: Any, right: Any) -> None:
    """The same keys in the same order, and the same numbers."""
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same_state(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        for x, y in zip(left, right, strict=True):
            assert_same_state(x, y)
    else:
        assert left == right


# What cannot hold


def complex_parameters(make: Make) -> None:
    make([torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))])


def sparse_gradients(make: Make) -> None:
    table = torch.nn.Embedding(10, 4, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    make(table.parameters()).step()


def another_optimizers_rate(make: Make) -> None:
    make(parameters(), lr=1e-3)


def option(name: str) -> Callable[[Make], None]:
    return lambda make: make(parameters(), **{name: True})


def a_state_of_another_optimizer(make: Make) -> None:
    params = parameters()
    other = torch.optim.AdamW(params)
    train(other, params)
    make(parameters()).load_state_dict(other.state_dict())


CANNOT: dict[str, tuple[Callable[[Make], None], type[Exception], str, str]] = {
    "complex parameters": (
        complex_parameters,
        ValueError,
        "parameter 0 of group 0 has dtype torch.complex64, and only floating-point parameters can be trained",
        "A cell is a function of real numbers, and no cell was trained on pairs of them.",
    ),
    "sparse gradients": (
        sparse_gradients,
        RuntimeError,
        r"the gradient of parameter 0 of group 0, shape \(10, 4\), is sparse",
        "The moments of a tensor are sums over all of its coordinates, and memory fades everywhere in each step.",
    ),
    "foreach": (
        option("foreach"),
        TypeError,
        "unexpected keyword argument 'foreach'",
        "Tensors always share operations, in blocks of up to `block_size` coordinates.",
    ),
    "fused": (
        option("fused"),
        TypeError,
        "unexpected keyword argument 'fused'",
        "The option `backend` says what updates tensors.",
    ),
    "capturable": (
        option("capturable"),
        TypeError,
        "unexpected keyword argument 'capturable'",
        "A step never reads a number from the device, so there is nothing to choose.",
    ),
    "differentiable": (
        option("differentiable"),
        TypeError,
        "unexpected keyword argument 'differentiable'",
        "Parameters and memory are written in place without a graph; the optax export is differentiable.",
    ),
    "maximize": (
        option("maximize"),
        TypeError,
        "unexpected keyword argument 'maximize'",
        "The loss is to be negated, which gives the same gradients.",
    ),
    "the rate of another optimizer": (
        another_optimizers_rate,
        UserWarning,
        "lr of group 0 is 0.001, and multiplies a step whose size is learned",
        "A factor of 0.001 is a mistake more often than a wish, so it warns.",
    ),
    "the state of another optimizer": (
        a_state_of_another_optimizer,
        ValueError,
        "group 0 of this state was saved by another optimizer",
        "Memory of one update rule means nothing to another one.",
    ),
}
"""What torch's optimizers accept and this one does not: how it ends, and why."""


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_hold_is_refused_in_one_sentence(make: Make, name: str) -> None:
    attempt, error, message, reason = CANNOT[name]
    assert reason.endswith(".")
    expected = pytest.warns(UserWarning, match=message) if error is UserWarning else pytest.raises(error, match=message)
    with expected as caught:
        attempt(make)
    if isinstance(caught, pytest.ExceptionInfo):
        assert "\n" not in str(caught.value)


# Minima


def rosenbrock(point: Tensor) -> Tensor:
    return (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2


def descend(optimizer: Any, loss_of: Callable[[], Tensor], steps: int) -> list[float]:
    """Losses before each step, which a closure computes."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)]


@pytest.mark.parametrize("total", [None, 300])
def test_the_valley_of_rosenbrock_is_found(make: Make, total: int | None) -> None:
    point = torch.nn.Parameter(torch.zeros(2))
    losses = descend(make([point], total_steps=total), lambda: rosenbrock(point), 300)
    assert losses[-1] < 0.1 * losses[0]


def squares(params: Sequence[Tensor]) -> Tensor:
    return torch.stack([param.float().square().sum() for param in params]).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_sum_of_squares_falls_in_every_dtype(make: Make, dtype: torch.dtype) -> None:
    params = parameters(dtype=dtype)
    losses = descend(make(params), lambda: squares(params), 30)
    assert losses[-1] < 0.8 * losses[0]
    assert all(param.dtype == dtype for param in params)


def test_groups_with_options_of_their_own_all_descend(make: Make) -> None:
    params = parameters()
    groups = [
        {"params": params[:1], "lr": 0.5},
        {"params": params[1:2], "weight_decay": 0.1},
        {"params": params[2:3], "lr": torch.tensor(2.0)},
        {"params": params[3:], "lr": 0.1, "weight_decay": 1.0, "total_steps": 50},
    ]
    before = [squares([param]).item() for param in params]
    descend(make(groups), lambda: squares(params), 30)
    assert all(squares([param]).item() < old for param, old in zip(params, before, strict=True))


# Rates and decay


def test_a_rate_multiplies_the_first_step(make: Make) -> None:
    moves = []
    for lr in (1.0, 0.5, 0.0):
        params = parameters()
        before = [param.detach().clone() for param in params]
        moves.append([new - old for new, old in zip(train(make(params, lr=lr), params, [0]), before, strict=True)])
    for whole, half, none in zip(*moves, strict=True):
        torch.testing.assert_close(2 * half, whole, rtol=1e-3, atol=1e-6)
        assert not none.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_rate_may_be_a_tensor_that_is_changed_in_place(make: Make, dtype: torch.dtype, shape: tuple) -> None:
    rate = torch.full(shape, 0.5, dtype=dtype)
    plain, params = parameters(), parameters()
    reference, optimizer = make(plain, lr=0.5), make(params, lr=rate)
    assert_equal(train(optimizer, params), train(reference, plain))
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5
    rate.fill_(0.25)
    reference.param_groups[0]["lr"] = 0.25
    assert_equal(train(optimizer, params), train(reference, plain))


def test_decay_is_of_its_group_and_shrinks_what_has_no_gradient(make: Make) -> None:
    """A gradient of zero moves nothing else."""
    left, right = parameters([(6, 5), (6, 5)])
    before = [left.detach().clone(), right.detach().clone()]
    optimizer = make([{"params": [left], "weight_decay": 10.0}, {"params": [right]}])
    for _ in range(3):
        for param in (left, right):
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert left.norm() < before[0].norm()
    torch.testing.assert_close(left / left.norm(), before[0] / before[0].norm())
    assert torch.equal(right, before[1])


# Gradients and parameters


def test_without_gradients_nothing_happens(make: Make) -> None:
    params = parameters()
    before = [param.detach().clone() for param in params]
    optimizer = make(params, weight_decay=1.0)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.zero_grad(set_to_none=False)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert_equal(params, before)
    assert not optimizer.state and optimizer.param_groups[0]["step"] == 0
    # They go on as those of an optimizer that was made now.
    other = parameters()
    assert_equal(train(optimizer, params), train(make(other, weight_decay=1.0), other))


def test_gradients_are_left_alone_and_reset_in_both_ways(make: Make) -> None:
    params = parameters()
    optimizer = make(params)
    give_gradients(params, 0)
    grads: list[Any] = [param.grad for param in params]
    values = [grad.clone() for grad in grads]
    optimizer.step()
    assert all(param.grad is grad for param, grad in zip(params, grads, strict=True))
    assert_equal(grads, values)
    optimizer.zero_grad(set_to_none=False)
    assert all(param.grad is grad and not grad.any() for param, grad in zip(params, grads, strict=True))
    optimizer.zero_grad()
    assert all(param.grad is None for param in params)


def test_empty_tensors_are_no_burden(make: Make) -> None:
    plain, params = parameters(), parameters([*SHAPES, (0,), (0, 3)])
    optimizer = make(params)
    assert_equal(train(optimizer, params)[: len(plain)], train(make(plain), plain))
    assert all(not optimizer.state.get(param) for param in params[len(plain) :])
    alone = parameters([(0, 3)])
    train(make(alone, total_steps=4), alone)


def test_strides_of_parameters_and_gradients_do_not_matter(make: Make) -> None:
    wide = torch.randn(12, 10, generator=torch.Generator().manual_seed(1))
    every_other = torch.nn.Parameter(wide[:, ::2])
    plain = torch.nn.Parameter(wide[:, ::2].clone())
    assert not every_other.is_contiguous()
    optimizer, reference = make([every_other]), make([plain])
    for step in range(3):
        row = torch.arange(5.0).add(step).sin()
        every_other.grad = row.expand(12, 5)
        plain.grad = row.expand(12, 5).clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(every_other, plain, rtol=1e-6, atol=1e-6)
    assert torch.equal(wide[:, 1::2], torch.randn(12, 10, generator=torch.Generator().manual_seed(1))[:, 1::2])


def test_dtypes_may_be_mixed_in_one_group(make: Make) -> None:
    plain = parameters([(33,)] * 4)
    expected = train(make(plain, lr=0.5), plain, [0])
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    params = [torch.nn.Parameter(param.to(dtype)) for param, dtype in zip(parameters([(33,)] * 4), dtypes, strict=True)]
    optimizer = make(params, lr=0.5)
    for param, value, dtype in zip(train(optimizer, params, [0]), expected, dtypes, strict=True):
        torch.testing.assert_close(param.float(), value, rtol=2e-2, atol=2e-2)
        assert param.dtype == dtype
    for param, dtype in zip(params, dtypes, strict=True):
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        assert {value.dtype for value in optimizer.state[param].values()} == {wanted}


# States


def test_a_state_holds_tensors_and_does_not_depend_on_the_run(make: Make) -> None:
    states = []
    for _ in range(2):
        params = parameters()
        optimizer = make([("w", param) for param in params[:1]])
        optimizer.add_param_group({"params": [(f"p{place}", param) for place, param in enumerate(params[1:])]})
        train(optimizer, params)
        assert all(optimizer.state[param] for param in params)
        assert all(isinstance(value, Tensor) for state in optimizer.state.values() for value in state.values())
        states.append(optimizer.state_dict())
        assert_same_state(optimizer.state_dict(), states[-1])
    assert_same_state(*states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_is_the_same_after_loading_weights_only(make: Make, dtype: torch.dtype) -> None:
    params = parameters(dtype=dtype)
    optimizer = make([{"params": params[:2], "lr": torch.tensor(0.5)}, {"params": params[2:], "weight_decay": 0.1}])
    train(optimizer, params)
    file = io.BytesIO()
    torch.save([params, optimizer.state_dict()], file)
    file.seek(0)
    values, state = torch.load(file, weights_only=True)
    again = make([{"params": values[:2]}, {"params": values[2:]}])
    again.load_state_dict(state)
    assert_same_state(again.state_dict(), optimizer.state_dict())
    assert_equal(train(again, values, [8, 9]), train(optimizer, params, [8, 9]))


def test_a_state_that_was_loaded_is_not_written_to(make: Make) -> None:
    params, others = parameters(), parameters()
    optimizer = make(params)
    train(optimizer, params)
    state = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(state)
    other = make(others)
    other.load_state_dict(state)
    assert_same_state(state, before)
    train(other, others)
    assert_same_state(state, before)


def test_a_state_without_steps_can_be_loaded(make: Make) -> None:
    plain, params = parameters(), parameters()
    optimizer = make(params)
    optimizer.load_state_dict(copy.deepcopy(make(parameters()).state_dict()))
    assert_equal(train(optimizer, params), train(make(plain), plain))


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["param_groups"][0].pop(name)


def with_a_number_for_the_clock(state: dict[str, Any]) -> None:
    state["param_groups"][0]["step"] = 3


BROKEN = {
    **{name: without(name) for name in ("lr", "weight_decay", "total_steps", "pretrained", "role", "step", "skipped")},
    "a number for the clock": with_a_number_for_the_clock,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_state_with_broken_groups_is_refused_and_changes_nothing(make: Make, broken: Any) -> None:
    params = parameters()
    optimizer = make(params)
    train(optimizer, params)
    state = copy.deepcopy(optimizer.state_dict())
    broken(state)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="group 0") as caught:
        optimizer.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert_same_state(optimizer.state_dict(), before)


def test_a_deep_copy_has_the_attributes_and_its_own_parameters(make: Make) -> None:
    params = parameters()
    optimizer = make(params, total_steps=50, weight_decay=0.1)
    train(optimizer, params)
    copies, other = copy.deepcopy((params, optimizer))
    assert {name for name in vars(other) if name[0] != "_"} == {name for name in vars(optimizer) if name[0] != "_"}
    assert_same_state(other.state_dict(), optimizer.state_dict())
    assert other.defaults.items() >= optimizer.defaults.items()
    assert all(left is right for left, right in zip(other.param_groups[0]["params"], copies, strict=True))
    assert_equal(train(other, copies, [7]), train(optimizer, params, [7]))


# Hooks


def test_hooks_of_a_step_come_in_their_order(make: Make) -> None:
    said: list[Any] = []
    params = parameters()
    optimizer = make(params)

    def say(word: str) -> Callable[..., None]:
        return lambda *arguments: said.append((word, arguments[0] is optimizer))

    handles = [
        optimizer.register_step_pre_hook(say("before")),
        optimizer.register_step_pre_hook(say("second before")),
        optimizer.register_step_post_hook(say("after")),
        register_optimizer_step_pre_hook(say("before all")),
        register_optimizer_step_post_hook(say("after all")),
    ]
    train(optimizer, params, [0])
    assert said == [(word, True) for word in ("before all", "before", "second before", "after", "after all")]
    for handle in handles:
        handle.remove()
    train(optimizer, params, [1])
    assert len(said) == 5


def test_a_hook_may_give_the_step_its_closure(make: Make) -> None:
    params = parameters()
    optimizer = make(params)
    optimizer.register_step_pre_hook(lambda *_: ((optimizer, lambda: 7.0), {}))
    assert optimizer.step() == 7.0


def test_hooks_of_states_come_in_their_order_and_may_replace_them(make: Make) -> None:
    said: list[str] = []
    params = parameters()
    optimizer = make(params)
    train(optimizer, params)

    def say(word: str) -> Callable[..., None]:
        return lambda *_: said.append(word)

    def tag(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        said.append("tag")
        return {**state, "tag": 1}

    optimizer.register_state_dict_pre_hook(say("before saving"))
    optimizer.register_state_dict_post_hook(say("after saving"))
    optimizer.register_state_dict_post_hook(tag)
    optimizer.register_state_dict_post_hook(say("first after saving"), prepend=True)
    state = optimizer.state_dict()
    assert state["tag"] == 1
    optimizer.register_load_state_dict_pre_hook(say("before loading"))
    optimizer.register_load_state_dict_pre_hook(say("first before loading"), prepend=True)
    optimizer.register_load_state_dict_post_hook(say("after loading"))
    optimizer.register_load_state_dict_post_hook(say("first after loading"), prepend=True)
    optimizer.load_state_dict(state)
    assert said == [
        *("before saving", "first after saving", "after saving", "tag"),
        *("first before loading", "before loading", "first after loading", "after loading"),
    ]


# Groups


def test_groups_may_be_named_in_any_form_that_torch_reads(make: Make) -> None:
    plain, params = parameters(), parameters()
    expected = train(make(plain), plain)
    first = make(param for param in params)
    assert_equal(train(first, params), expected)
    params = parameters()
    last = make([{"params": params[0]}, {"params": iter(params[1:2])}, {"params": []}, {"params": params[2:]}])
    assert [len(group["params"]) for group in last.param_groups] == [1, 1, 0, 2]
    assert_equal(train(last, params), expected)


def test_named_groups_may_be_added_and_keep_their_names(make: Make) -> None:
    params = parameters()
    optimizer = make([("first", params[0])])
    optimizer.add_param_group({"params": [("second", params[1]), ("third", params[2])], "lr": 0.5})
    assert [group["param_names"] for group in optimizer.param_groups] == [["first"], ["second", "third"]]
    train(optimizer, params[:3])
    state = optimizer.state_dict()
    assert [group["param_names"] for group in state["param_groups"]] == [["first"], ["second", "third"]]


BAD_GROUPS: dict[str, tuple[Callable[[list[Tensor]], Any], type[Exception], str]] = {
    "a parameter twice": (lambda params: {"params": params[:1]}, ValueError, "appear in more than one parameter group"),
    "no dictionary": (lambda params: params[1:], TypeError, "must be a dict"),
    "a number": (lambda _: {"params": [5]}, TypeError, "can only optimize Tensors"),
    "a set": (lambda params: {"params": set(params[1:])}, TypeError, "ordering of tensors in sets"),
    "a result": (lambda params: {"params": [params[1] * 2]}, ValueError, "non-leaf"),
    "names beside none": (lambda params: {"params": [("a", params[1])]}, ValueError, "with/without names"),
    "an unsuitable rate": (lambda params: {"params": params[1:], "lr": -1.0}, ValueError, "lr of group 1 must be"),
    "a rate of nan": (
        lambda params: {"params": params[1:], "lr": torch.tensor(float("nan"))},
        ValueError,
        "lr of group 1 must be a finite number",
    ),
}


@pytest.mark.parametrize("name", BAD_GROUPS)
def test_a_group_that_is_refused_is_not_there(make: Make, name: str) -> None:
    group_of, error, message = BAD_GROUPS[name]
    plain, params = parameters([(5,)]), parameters()
    optimizer = make(params[:1])
    with pytest.raises(error, match=message):
        optimizer.add_param_group(group_of(params))
    assert len(optimizer.param_groups) == 1
    assert_equal(train(optimizer, params[:1]), train(make(plain), plain))


# Life


def test_it_goes_with_its_last_reference(make: Make) -> None:
    params = parameters()
    optimizer = make(params, total_steps=9)
    train(optimizer, params)
    optimizer.load_state_dict(optimizer.state_dict())
    reference = weakref.ref(optimizer)
    del optimizer
    assert reference() is None


def test_profiles_and_texts_name_it(make: Make) -> None:
    params = parameters()
    optimizer = make(params, weight_decay=0.25)
    give_gradients(params, 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert {"Optimizer.step#Mnemosyne.step", "Optimizer.zero_grad#Mnemosyne.zero_grad"} <= names
    assert "Parameter Group 0" in repr(optimizer) and "weight_decay: 0.25" in repr(optimizer)


def test_a_subclass_may_change_the_step(make: Any) -> None:
    class Flipped(make):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for param in group["params"]:
                    param.grad.neg_()
            return super().step(closure)

    plain, params = parameters(), parameters()
    reference, optimizer = make(plain), Flipped(params)
    for seed in range(3):
        give_gradients(plain, seed)
        for param in plain:
            assert param.grad is not None
            param.grad.neg_()
        give_gradients(params, seed)
        reference.step()
        optimizer.step()
    assert_equal(params, plain)
    assert type(copy.deepcopy(optimizer)) is Flipped
