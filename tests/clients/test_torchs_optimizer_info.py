"""The torch export is one more entry of what torch's own tests run over all optimizers."""

import unittest
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")

from torch.testing._internal import common_optimizers as common  # noqa: E402
from torch.testing._internal.common_device_type import instantiate_device_type_tests  # noqa: E402
from torch.testing._internal.common_utils import TestCase  # noqa: E402

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "non-default lr": {"lr": 0.5},
    "Tensor lr": {"lr": torch.tensor(0.5)},
    "weight_decay": {"weight_decay": 0.1},
    "Tensor weight_decay": {"weight_decay": torch.tensor(0.1)},
    "total_steps": {"total_steps": 500},
    "pretrained": {"pretrained": True},
    "small blocks": {"block_size": 8},
    "all": {"lr": 0.5, "weight_decay": 0.1, "total_steps": 500, "pretrained": False, "block_size": 8},
}
OWN_WORDS = {"Tensor lr must be 1-element": "lr of group 0 must be one number, not a tensor of 2"}
"""What this optimizer says where torch's tests look for other words."""
BAD_OPTIONS = [
    ({"lr": -1.0}, "lr of group 0 must be a finite number of at least 0"),
    ({"weight_decay": -1.0}, "weight_decay of group 0 must be a finite number of at least 0"),
    ({"total_steps": 0}, "total_steps of group 0 must be a positive integer"),
    ({"block_size": 0}, "block_size counts coordinates"),
    ({"pretrained": "yes"}, "pretrained of group 0 must be True, False, or None"),
]
UNSUPPORTED = {
    "supported_impls": "There is one implementation, so foreach, fused and differentiable are no options.",
    "not_og_supported_flags": "No option of torch's optimizers was added later.",
    "supports_sparse": "Moments and memory are those of whole tensors.",
    "supports_complex": "A cell is a function of real numbers.",
    "has_capturable_arg": "A step never reads from the device.",
    "step_requires_closure": "A closure may be passed, and need not be.",
}
"""Fields that are false or empty, and why."""


def inputs(device: Any, dtype: Any = None) -> list[Any]:
    del device, dtype
    # The tests bring their own parameters.
    none: Any = None
    return [common.OptimizerInput(params=none, kwargs=kwargs, desc=name) for name, kwargs in CONFIGURATIONS.items()]


def error_inputs(device: Any, dtype: torch.dtype) -> list[Any]:
    errors = common.get_error_inputs_for_all_optims(device, dtype)
    for each in errors:
        each.error_regex = OWN_WORDS.get(each.error_regex, each.error_regex)

    def add(params: Any, options: dict[str, Any], message: str, **how: Any) -> None:
        given = common.OptimizerInput(params=params, kwargs=options, desc=message)
        errors.append(common.ErrorOptimizerInput(given, error_regex=message, **how))

    for options, message in BAD_OPTIONS:
        add(None, options, message, error_type=ValueError)
    complex_param = torch.nn.Parameter(torch.ones(3, device=device, dtype=torch.complex64))
    add([complex_param], {}, "has dtype torch.complex64", error_type=ValueError)
    param = torch.nn.Parameter(torch.ones(3, 2, device=device, dtype=dtype))
    param.grad = torch.ones_like(param).to_sparse()
    add([param], {}, "is sparse", error_type=RuntimeError, error_on=common.OptimizerErrorEnum.STEP_ERROR)
    return errors


@pytest.fixture(params=["prior", pytest.param("network", marks=pytest.mark.slow)])
def info(request: pytest.FixtureRequest, package_of: Callable[[str, str], ModuleType]) -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    schedules = {each.name: each.scheduler_inputs for each in common.optim_db}
    yield common.OptimizerInfo(
        package_of("torch", request.param).Mnemosyne,
        optim_inputs_func=inputs,
        optim_error_inputs_func=error_inputs,
        scheduler_inputs=(*schedules["SGD"], *schedules["Adam"]),
        supported_impls=(),
        not_og_supported_flags=(),
        supports_complex=False,
    )
    torch.set_num_threads(threads)


def checks(info: Any) -> type[unittest.TestCase]:
    """Checks of an optimizer for the CPU, made by torch for each entry of a list of optimizers."""
    over_all = common.optims([info], dtypes=[torch.float32, torch.float64])

    class Checks(TestCase):
        @over_all
        def test_every_configuration_descends(self, device: Any, dtype: torch.dtype, optim_info: Any) -> None:
            for configuration in configurations(optim_info, device, dtype):
                losses = descend(optim_info.optim_cls, configuration.kwargs, (), device, dtype)
                self.assertLess(losses[-1], losses[0], configuration.desc)

        @over_all
        def test_every_schedule_descends(self, device: Any, dtype: torch.dtype, optim_info: Any) -> None:
            for makers in optim_info.scheduler_inputs:
                losses = descend(optim_info.optim_cls, {}, makers, device, dtype)
                self.assertLess(losses[-1], losses[0], str(makers))

        @over_all
        def test_runs_repeat_exactly(self, device: Any, dtype: torch.dtype, optim_info: Any) -> None:
            """The second run is held to each milestone of the first."""
            for configuration in configurations(optim_info, device, dtype):
                tracker = common.TensorTracker({"rtol": 0, "atol": 0})
                descend(optim_info.optim_cls, configuration.kwargs, (), device, dtype, tracker.add, steps=5)
                descend(
                    optim_info.optim_cls,
                    configuration.kwargs,
                    (),
                    device,
                    dtype,
                    lambda param, tracker=tracker: tracker.pop_check_set(param.data, self),
                    steps=5,
                )
                self.assertTrue(tracker.all_popped())

        @over_all
        def test_every_mistake_is_noticed(self, device: Any, dtype: torch.dtype, optim_info: Any) -> None:
            for mistake in optim_info.optim_error_inputs_func(device, dtype):
                given = mistake.optimizer_error_input
                params = [torch.nn.Parameter(torch.ones(2, 2, device=device, dtype=dtype))]
                params = params if given.params is None else given.params
                optimizer = None
                if mistake.error_on is common.OptimizerErrorEnum.STEP_ERROR:
                    optimizer = optim_info.optim_cls(params, **given.kwargs)
                expected: Any = self.assertRaisesRegex(mistake.error_type, mistake.error_regex)
                with warnings.catch_warnings(), expected:
                    warnings.simplefilter("error")
                    optimizer.step() if optimizer else optim_info.optim_cls(params, **given.kwargs)

    return Checks


def configurations(info: Any, device: Any, dtype: torch.dtype) -> list[Any]:
    return common._get_optim_inputs_including_global_cliquey_kwargs(device, dtype, info)


def descend(
    optimizer_class: Any,
    options: dict[str, Any],
    schedules: Any,
    device: Any,
    dtype: torch.dtype,
    watch: Callable[[torch.Tensor], Any] | None = None,
    steps: int = 20,
) -> list[float]:
    """Losses of a linear regression; `watch` sees the parameters after each step."""
    generator = torch.Generator().manual_seed(0)
    targets, features = (torch.randn(shape, generator=generator).to(device, dtype) for shape in ((9, 6), (9, 4)))
    weight = torch.nn.Parameter(torch.randn(4, 6, generator=generator).to(device, dtype))
    bias = torch.nn.Parameter(torch.ones(6, device=device, dtype=dtype))
    optimizer = optimizer_class([weight, bias], **options)
    schedulers = [make(optimizer) for make in schedules]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (features @ weight + bias - targets).square().mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(steps):
        losses.append(optimizer.step(closure).item())
        for scheduler in schedulers:
            plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            scheduler.step(losses[-1]) if plateau else scheduler.step()
        if watch is not None:
            watch(weight)
            watch(bias)
    return losses


def test_torchs_machinery_runs_it(info: Any) -> None:
    generic = checks(info)
    # Torch puts the class for the CPU in the place of the one for any device.
    scope: dict[str, Any] = {generic.__name__: generic}
    instantiate_device_type_tests(generic, scope, only_for="cpu")
    (made,) = scope.values()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(made)
    result = unittest.TestResult()
    suite.run(result)
    assert not [text for _, text in (*result.errors, *result.failures)]
    assert result.testsRun == 8 and not result.skipped


def test_what_it_does_not_support_is_said(info: Any) -> None:
    for field, reason in UNSUPPORTED.items():
        assert not getattr(info, field) and reason.endswith(".")
