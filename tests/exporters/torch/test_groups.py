"""Groups, keys and hooks of other people, and resuming: what torch's own optimizers allow."""

import copy
import io
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from torch import Tensor

from tests.exporters.torch.test_surroundings import give_gradients, parameters, train

NAMES = ("a", "b", "c")


@settings(max_examples=25, deadline=None)
@example(actions=["clear", "copy", "again"], has_empty=False)
@given(
    actions=st.lists(st.sampled_from(["reverse", "remove", "empty", "clear", "again", "save", "copy"]), max_size=6),
    has_empty=st.booleans(),
)
def test_groups_may_come_go_and_change_places(tiled: ModuleType, actions: list[str], has_empty: bool) -> None:
    """The same as one optimizer whose groups stay, of the parameters that are in a group in each step."""
    plain, params = parameters([(8,), (9, 8), (5, 6)]), parameters([(8,), (9, 8), (5, 6)])
    steady = tiled.Mnemosyne([{"params": [param]} for param in plain], total_steps=20)
    groups = [{"params": [param]} for param in params]
    optimizer = tiled.Mnemosyne([{"params": []}, *groups] if has_empty else groups, total_steps=20)
    for step, action in enumerate(["none", *actions]):
        found = optimizer.param_groups
        if action == "reverse":
            found.reverse()
        elif action == "remove" and found:
            found.pop(0)
        elif action == "empty":
            optimizer.add_param_group({"params": []})
        elif action == "clear":
            found.clear()
        elif action == "again":
            inside = {id(param) for group in found for param in group["params"]}
            for param in params:
                if id(param) not in inside:
                    optimizer.add_param_group({"params": [param]})
        elif action == "save" and sum(len(group["params"]) for group in found) == len(params):
            # Where a parameter with a state is in no group, torch cannot save.
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif action == "copy":
            params, optimizer = copy.deepcopy((params, optimizer))
        inside = {id(param) for group in optimizer.param_groups for param in group["params"]}
        for each in (plain, params):
            give_gradients(each, step)
        for left, right in zip(plain, params, strict=True):
            if id(right) not in inside:
                left.grad = None
        steady.step()
        optimizer.step()
        for left, right in zip(plain, params, strict=True):
            torch.testing.assert_close(right, left, rtol=1e-6, atol=1e-6)


def test_keys_of_others_stay_and_change_nothing(tiled: ModuleType) -> None:
    plain, params = parameters(), parameters()
    expected = train(tiled.Mnemosyne(plain), plain, range(4))
    optimizer = tiled.Mnemosyne(params)
    for param in params:
        optimizer.state[param]["slow"] = param.detach().clone()
    train(optimizer, params, range(2))
    optimizer.state[params[0]]["z"] = {"count": 3}
    slow = optimizer.state[params[1]]["slow"].clone()
    resumed = tiled.Mnemosyne(params)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(resumed.state[params[1]]["slow"], slow) and resumed.state[params[0]]["z"] == {"count": 3}
    for left, right in zip(train(resumed, params, range(2, 4)), expected, strict=True):
        assert torch.equal(left, right)


def test_what_hooks_change_counts(tiled: ModuleType) -> None:
    params, doubled = parameters(), parameters()
    optimizer, other = tiled.Mnemosyne(params), tiled.Mnemosyne(doubled)

    def flip(*_: Any) -> None:
        for param in doubled:
            assert param.grad is not None
            param.grad.neg_()

    handle = other.register_step_pre_hook(flip)
    give_gradients(doubled, 0)
    other.step()
    handle.remove()
    for param in params:
        param.grad = None
    give_gradients(params, 0)
    for param in params:
        assert param.grad is not None
        param.grad.neg_()
    optimizer.step()
    for left, right in zip(params, doubled, strict=True):
        assert torch.equal(left, right)

    def before(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        state = copy.deepcopy(state)
        state["state"][1]["fast"].fill_(3.0)
        return state

    def after(loaded: Any) -> None:
        loaded.state[params[0]]["fast"].fill_(5.0)

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after)
    optimizer.load_state_dict(optimizer.state_dict())
    assert (optimizer.state[params[1]]["fast"] == 3).all() and (optimizer.state[params[0]]["fast"] == 5).all()


def resumed(package: ModuleType, params: Sequence[Tensor], saved: Any, **options: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        optimizer = package.Mnemosyne(params, **options)
        optimizer.load_state_dict(copy.deepcopy(saved))
    return optimizer, [str(each.message) for each in said]


def test_the_number_of_steps_that_is_given_counts(tiled: ModuleType) -> None:
    params = parameters()
    optimizer = tiled.Mnemosyne(params, total_steps=5, weight_decay=0.1)
    train(optimizer, params, range(3))
    saved = optimizer.state_dict()
    longer, said = resumed(tiled, params, saved, total_steps=50)
    assert longer.param_groups[0]["total_steps"] == 50 and not said
    assert longer.param_groups[0]["weight_decay"] == 0.1
    same, said = resumed(tiled, params, saved)
    assert same.param_groups[0]["total_steps"] == 5 and not said
    _, said = resumed(tiled, params, saved, weight_decay=0.2, pretrained=True)
    assert [each.split(", as in")[0] for each in said] == [
        "weight_decay of group 0 is 0.1",
        "pretrained of group 0 is None",
    ]
    # The longer one takes the steps of one that was made with that length.
    copies = copy.deepcopy(params)
    other = tiled.Mnemosyne(copies, total_steps=5)
    other.load_state_dict(copy.deepcopy(saved))
    other.param_groups[0]["total_steps"] = 50
    for left, right in zip(train(longer, params, [7, 8]), train(other, copies, [7, 8]), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("is_resumed", [False, True])
def test_steps_beyond_the_end_warn_once(tiled: ModuleType, is_resumed: bool) -> None:
    params = parameters([(6,)])
    optimizer = tiled.Mnemosyne(params, total_steps=3)
    train(optimizer, params, [0])
    if is_resumed:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        optimizer = tiled.Mnemosyne(params)
        optimizer.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    params[0].grad = torch.full((6,), torch.nan)
    # A step that was refused is none.
    optimizer.step()
    train(optimizer, params, [1, 2])
    with pytest.warns(UserWarning, match="step 4 is beyond total_steps=3, and steps stay as small as at the end"):
        train(optimizer, params, [3])
    train(optimizer, params, [4, 5])


def test_a_learning_rate_of_another_optimizer_is_remarked(tiled: ModuleType) -> None:
    params = parameters([(6,), (7,)])
    with pytest.warns(UserWarning, match=r"lr of group 0 is 0\.001, and multiplies .* leave lr out"):
        tiled.Mnemosyne(params, lr=1e-3)
    with pytest.warns(UserWarning, match=r"lr of group 1 is 1e-05"):
        tiled.Mnemosyne([{"params": params[:1]}, {"params": params[1:], "lr": 1e-5}])
    # Schedules that begin at zero, parts that should stay, and factors.
    for lr in (0.0, 0.01, 0.5, torch.tensor(1e-3)):
        tiled.Mnemosyne(params, lr=lr)


def test_a_schedule_on_top_of_annealing_is_remarked_once(tiled: ModuleType) -> None:
    """As Trainer's default is; constant schedules, warm-up and schedules without a known end are not."""
    schedules = torch.optim.lr_scheduler
    for total, schedule, count in (
        (10, lambda each: schedules.LinearLR(each, 1.0, 0.0, 10), 1),
        (10, lambda each: schedules.LambdaLR(each, lambda step: min((step + 1) / 5, 1)), 0),
        (10, lambda each: schedules.ConstantLR(each, 1.0), 0),
        (None, lambda each: schedules.LinearLR(each, 1.0, 0.0, 10), 0),
    ):
        params = parameters([(6,)])
        optimizer = tiled.Mnemosyne(params, total_steps=total)
        scheduler = schedule(optimizer)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(9):
                train(optimizer, params, [step])
                scheduler.step()
        assert ["anneals twice" in str(each.message) for each in said] == [True] * count


@pytest.mark.parametrize("total", [None, 30])
def test_step_sizes_are_what_directions_are_multiplied_with(tiled: ModuleType, total: int | None) -> None:
    """Under a constant gradient, directions stay."""
    names, shapes = (
        ["mlp.up_proj.weight", "norm.weight", "wte.weight", "unused.weight"],
        [(16, 16), (50,), (20, 16), (4, 4)],
    )
    params = parameters(shapes)
    optimizer = tiled.Mnemosyne(zip(names, params, strict=True), total_steps=total, lr=0.5)
    assert optimizer.step_sizes() == {}
    ratios = []
    for _ in range(4):
        before = [param.detach().clone() for param in params[:3]]
        give_gradients(params[:3], 1)
        optimizer.step()
        sizes = optimizer.step_sizes()
        assert set(sizes) == set(names[:3])
        moved = [(param.detach() - old).square().mean().sqrt() for param, old in zip(params, before, strict=False)]
        ratios.append([float(move) / sizes[name] for name, move in zip(names, moved, strict=False)])
        optimizer.param_groups[0]["lr"] *= 2
    for later in ratios[1:]:
        assert later == pytest.approx(ratios[0], rel=1e-3)
    assert ratios[0][0] == pytest.approx(1, rel=0.1) and all(1 <= ratio < 2 for ratio in ratios[0][1:])
    params[0].grad = torch.full((16, 16), torch.nan)
    optimizer.step()
    assert set(optimizer.step_sizes().values()) == {0.0}
    other = tiled.Mnemosyne([{"params": params[:1]}, {"params": params[1:2]}])
    train(other, params[:2], [1])
    assert sorted(other.step_sizes()) == ["0.0", "1.0"]


def test_a_cell_that_does_not_say_its_steps_is_named(torch_package: ModuleType, tiled: ModuleType) -> None:
    sizes = torch_package.Mnemosyne(parameters([(4,)])).step_sizes()
    assert sizes == {}
    inputs = dict(tiled._optimizer.INPUTS)
    try:
        tiled._optimizer.INPUTS.clear()
        with pytest.raises(NotImplementedError, match="tiles does not say its step sizes"):
            tiled.Mnemosyne(parameters([(4,)])).step_sizes()
    finally:
        tiled._optimizer.INPUTS.update(inputs)


def test_flat_parts_in_the_place_of_tensors_are_refused(tiled: ModuleType) -> None:
    """As DeepSpeed's ZeRO puts them there."""
    params = parameters([(8, 8), (8,)])
    optimizer = tiled.Mnemosyne(params)
    flat = torch.nn.Parameter(torch.cat([param.detach().view(-1) for param in params]))
    optimizer.param_groups[0]["params"] = [flat]
    flat.grad = torch.ones_like(flat)
    with pytest.raises(RuntimeError, match="parameter 0 of group 0 is flat .* use fully_shard"):
        optimizer.step()
    assert torch.equal(flat, torch.cat([param.detach().view(-1) for param in params]))
    # Copies of the tensors, as of another dtype, are tensors.
    others = [torch.nn.Parameter(param.detach().double()) for param in params]
    optimizer.param_groups[0]["params"] = others
    train(optimizer, others, [0])
