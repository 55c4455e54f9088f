"""Kernels take the steps of batched torch operations, in Triton's interpreter, and compile for a GPU."""

import importlib
import json
import math
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable
from types import ModuleType
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import Phase
from torch import nn, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnemo_compile.cell import AbstractCell, cell_config
from mnemo_compile.exporters.python import load_package
from mnemo_compile.exporters.torch import TorchExporter
from mnemo_compile.program import compile_cell
from tests.cells import cell_of
from tests.exporters.torch.test_sharding import run
from tests.helpers import learned_cell

triton = pytest.importorskip("triton")

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NAMES = ("layer.weight", "layer.bias", "conv.weight", "token_embedding.weight", "lm_head.weight", "scale")
KINDS = ("contiguous", "transposed", "every second", "offset", "channels last")
GRADIENT_KINDS = (*KINDS, "expanded")


# NumPy, which the interpreter calculates with, warns of what is not a number.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

CELLS: dict[str, Callable[[], AbstractCell]] = {
    "prior": lambda: cell_of("prior"),
    "trio": lambda: cell_of("trio"),
    "learned": learned_cell,
    "tracks": lambda: cell_of("tracks"),
    "sampled": lambda: cell_of("sampled"),
    "tiled": lambda: cell_of("tiled"),
    "adam": lambda: cell_config({"kind": "adam"}).build(),
}
"""Cells that have kernels for all phases or, with a network, for some, and with several numbers per coordinate."""
QUICK = ("prior", "trio", "learned", "sampled")


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp(request.param)
    return exported(folder, request.param, CELLS[request.param]())


def exported(folder: pathlib.Path, name: str, cell: AbstractCell) -> ModuleType:
    """The torch package of a cell."""
    frozen: Any = types.SimpleNamespace(name=name, version="1.0.0", digest="0" * 64)
    TorchExporter().emit(frozen, compile_cell(cell), folder)
    return load_package(folder / name)


def laid_out(values: Tensor, kind: str) -> Tensor:
    """The same numbers in another place of memory."""
    if kind == "transposed" and values.dim() > 1:
        return values.transpose(0, -1).clone(memory_format=torch.contiguous_format).transpose(0, -1)
    if kind == "every second" and values.dim():
        return torch.stack([values, values], dim=-1)[..., 0]
    if kind == "offset":
        return torch.cat([values.new_zeros(1), values.reshape(-1)])[1:].view(values.shape)
    if kind == "channels last" and values.dim() == 4:
        return values.to(memory_format=torch.channels_last)
    return values.clone()


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...], torch.dtype, str, str]]:
    """Names, shapes, dtypes, and how parameters and gradients lie in memory."""
    shapes = st.lists(st.integers(1, 21), max_size=4).map(tuple).filter(lambda shape: math.prod(shape) < 900)
    one = st.tuples(
        st.sampled_from(NAMES), shapes, st.sampled_from(DTYPES), st.sampled_from(KINDS), st.sampled_from(GRADIENT_KINDS)
    )
    drawn = draw(st.lists(one, min_size=1, max_size=4))
    return [(f"{place}.{each[0]}", each[1], each[2], each[3], each[4]) for place, each in enumerate(drawn)]


@pytest.mark.parametrize(
    "package",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CELLS],
    indirect=True,
)
@hypothesis.given(given=tensors(), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=5, deadline=None, phases=[phase for phase in Phase if phase is not Phase.shrink])
def test_kernels_take_the_steps_of_torch_operations(
    package: ModuleType, given: list[tuple[str, tuple[int, ...], torch.dtype, str, str]], seed: int
) -> None:
    """Whatever the shapes, dtypes and strides, with gradients that vanish and that are not finite."""
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape, dtype, _, _ in given}
    pairs = []
    for backend in ("torch", "triton"):
        params = {name: nn.Parameter(laid_out(start[name], kind)) for name, _, _, kind, _ in given}
        optimizer = package.Mnemosyne(params.items(), total_steps=4, weight_decay=0.1, backend=backend)
        pairs.append((params, optimizer))
    for step in range(4):
        grads = {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}
        for grad in grads.values():
            if step == 1:
                grad.zero_()
            if step == 2 and grad.numel():
                grad.view(-1)[-1:] = math.inf
        for params, optimizer in pairs:
            for name, _, dtype, _, kind in given:
                grad = grads[name].to(dtype)
                params[name].grad = grad.mean().expand(grad.shape) if kind == "expanded" else laid_out(grad, kind)
            optimizer.step()
    (expected, one), (got, other) = pairs
    assert one.skipped_steps == other.skipped_steps == 1
    for name, _, dtype, _, _ in given:
        # A parameter in half precision may round the other way.
        bound = 1e-5 if dtype in (torch.float32, torch.float64) else 2 * torch.finfo(dtype).eps
        error = (got[name] - expected[name]).double().norm() / expected[name].double().norm()
        assert error <= bound, f"{name}: {error}"
        for key, value in one.state[expected[name]].items():
            # So may a number that is stored in half precision.
            rtol = 2 * torch.finfo(value.dtype).eps if value.dtype == torch.bfloat16 else 2e-3
            torch.testing.assert_close(other.state[got[name]][key], value, rtol=rtol, atol=1e-6, msg=key)


@pytest.mark.parametrize("package", [pytest.param("learned", marks=pytest.mark.slow), "sampled"], indirect=True)
@hypothesis.given(given=tensors(), seed=st.integers(0, 99))
@hypothesis.settings(max_examples=5, deadline=None, phases=[phase for phase in Phase if phase is not Phase.shrink])
def test_a_kernel_gathers_the_very_numbers_that_torch_gathers(
    package: ModuleType, given: list[tuple[str, tuple[int, ...], torch.dtype, str, str]], seed: int
) -> None:
    """Whatever the shapes, dtypes and strides. A tensor has zeros in the place of memory that it lacks."""
    launch, rows = (importlib.import_module(f"{package.__name__}.{name}") for name in ("_launch", "_rows"))
    generator = torch.Generator().manual_seed(seed)
    params = {}
    for name, shape, dtype, kind, _ in given:
        params[name] = nn.Parameter(laid_out(torch.randn(shape, generator=generator).to(dtype), kind))
    optimizer = package.Mnemosyne(params.items(), total_steps=4, backend="triton")
    read = launch.KernelBucket._input
    compared = 0

    def compare(bucket: Any, name: str, part: Any) -> Tensor:
        nonlocal compared
        sample = read(bucket, name, part)
        if name in launch.ARRAYS:
            slot = rows.SLOTS.get(name, rows.NUMBER)
            expected = [
                pack.gather(bucket.tensors[name], torch.float32, slot)
                if name in (*pack.slots, "param", "grad")
                else torch.zeros(pack.chunks, *rows.row_shape(slot))
                for pack in bucket.partition.samples
            ]
            assert torch.equal(sample, torch.cat(expected)), name
            compared += 1
        return sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.KernelBucket, "_input", compare)
        for _ in range(2):
            for name, _, dtype, _, kind in given:
                grad = torch.randn(params[name].shape, generator=generator).to(dtype)
                params[name].grad = grad.mean().expand(grad.shape) if kind == "expanded" else laid_out(grad, kind)
            optimizer.step()
    kinds = {dtype == torch.float64 for _, _, dtype, _, _ in given}
    assert compared == 2 * len(launch.ARRAYS) * (False in kinds)


def test_products_are_rounded_as_the_user_says(tiled: ModuleType) -> None:
    """Which way a factor is rounded may differ, and Newton–Schulz steps amplify it."""
    steps = []
    for backend, precision in (("torch", "bfloat16"), ("triton", "bfloat16"), ("triton", "float32")):
        torch.manual_seed(0)
        param = nn.Parameter(torch.randn(20, 30))
        before = param.detach().clone()
        optimizer = tiled.Mnemosyne([("layer.weight", param)], total_steps=9, backend=backend, precision=precision)
        param.grad = torch.randn(20, 30)
        optimizer.step()
        steps.append(param.detach() - before)
    apart, rounding = (float((steps[i] - steps[1]).norm() / steps[1].norm()) for i in (0, 2))
    assert apart < 0.05 and 1e-4 < rounding < 0.1


def steps(package: ModuleType, backend: str) -> list[Tensor]:
    """The parameters after three steps, one of which lies in memory as no tile does."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (6, 4, 3, 3), "layer.weight": (12, 20), "layer.bias": (12,)}
    params = {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float32))
        for name, shape in shapes.items()
    }
    params["conv.weight"].data = params["conv.weight"].data.to(memory_format=torch.channels_last)
    optimizer = package.Mnemosyne(params.items(), total_steps=4, backend=backend)
    for _ in range(3):
        for param in params.values():
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float32)
        optimizer.step()
    return [param.detach() for param in params.values()]


def test_tiles_that_do_not_fit_on_a_chip_are_products_of_torch(
    tiled: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = steps(tiled, "torch")
    launcher = importlib.import_module(f"{tiled.__name__}._launch").Launcher
    monkeypatch.setattr(launcher, "update_tiles", lambda *arguments: False)
    for one, other in zip(expected, steps(tiled, "triton"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_default_dtype_does_not_matter_to_kernels(tiled: ModuleType) -> None:
    expected = steps(tiled, "triton")
    torch.set_default_dtype(torch.float64)
    try:
        results = steps(tiled, "triton")
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(expected, results, strict=True))


def test_a_step_by_kernels_is_the_same_each_time(tiled: ModuleType) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(shape)) for shape in ((40, 30), (700,), (3, 5))]
        optimizer = tiled.Mnemosyne(params, backend="triton")
        for _ in range(2):
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
        results.append([param.detach() for param in params])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


class Calls(TorchDispatchMode):
    """Counts operations of torch that compute something."""

    FREE = ("view", "as_strided", "t.default", "select", "slice", "detach", "expand", "alias", "empty", "is_set_to")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not any(free in str(func) for free in self.FREE)
        return func(*args, **(kwargs or {}))


def launches(package: ModuleType, copies: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Kernels and operations of a step over so many times four tensors, when nothing has moved."""
    from triton.runtime.interpreter import InterpretedFunction

    shapes = {"weight": (12, 20), "bias": (12,), "token_embedding.weight": (33, 20), "norm.weight": (8,)}
    params = [(f"{i}.{name}", nn.Parameter(torch.ones(shape))) for i in range(copies) for name, shape in shapes.items()]
    for _, param in params:
        param.grad = torch.ones_like(param)
    optimizer = package.Mnemosyne(params, total_steps=9, backend="triton")
    optimizer.step()
    count = 0
    run = InterpretedFunction.run

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        before = calls.count
        run(self, *args, **kwargs)
        # The interpreter's own operations do not count.
        calls.count = before

    with monkeypatch.context() as patch, Calls() as calls:
        patch.setattr(InterpretedFunction, "run", counted)
        optimizer.step()
    return count + calls.count


def test_launches_do_not_grow_with_the_number_of_tensors(tiled: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (launches(tiled, copies, monkeypatch) for copies in (1, 9))
    assert few == many <= 15


@pytest.mark.parametrize("package", ["learned"], indirect=True)
def test_launches_of_a_network_do_not_grow_with_the_number_of_tensors(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though torch computes some of its phases."""
    few, many = (launches(package, copies, monkeypatch) for copies in (1, 9))
    assert few == many


def test_kernels_are_refused_where_they_cannot_run(tiled: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [nn.Parameter(torch.ones(3))]
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="not available here, because Triton runs on a GPU, and parameters are on cpu"):
        tiled.Mnemosyne(params, backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="because Triton is not installed; leave backend out"):
        tiled.Mnemosyne(params, backend="triton")


def test_kernels_that_cannot_be_verified_are_not_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mnemo_compile.exporters.torch._exporter.can_interpret", lambda: False)
    frozen: Any = types.SimpleNamespace(name="bare", version="1.0.0", digest="0" * 64)
    TorchExporter().emit(frozen, compile_cell(cell_of("prior")), tmp_path)
    assert not (tmp_path / "bare" / "_kernels.py").exists()
    assert "the torch package of bare has none" in caplog.text
    optimizer = load_package(tmp_path / "bare").Mnemosyne
    with pytest.raises(ValueError, match="this package has no Triton kernels"):
        optimizer([nn.Parameter(torch.ones(3))], backend="triton")


def test_two_processes_step_as_one_by_kernels(tiled_folder: pathlib.Path) -> None:
    run(2, "kernels", tiled_folder)


def compiled(folder: pathlib.Path, name: str, kernels: str) -> dict[str, Any]:
    """What the compiler makes of kernels for an H100, which needs no GPU. Triton must not interpret there."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.exporters.torch.compile_kernels", str(folder), name, kernels],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def test_kernels_over_chunks_and_tensors_compile_for_a_gpu(tiled_folder: pathlib.Path) -> None:
    """Threads read and write four numbers at once, and put nothing aside."""
    report = compiled(tiled_folder, "tiles", "measure,share,recall,update,add_sums,settle,gather_sample,move_states")
    for name in ("measure", "update"):
        assert report[name]["wide reads"] > 0, report
    assert report["update"]["wide writes"] == report["update"]["writes"] > 0, report
    assert all(kernel["spilled"] == 0 for kernel in report.values()), report


@pytest.mark.slow
def test_kernels_over_tiles_compile_for_a_gpu(tiled_folder: pathlib.Path) -> None:
    """A tile of 128 by 128 is multiplied by tensor cores, fits into shared memory, and nearly into registers."""
    report = compiled(tiled_folder, "tiles", "tiles")["tiles"]
    assert report["matrix instructions"] > 0 and report["shared"] <= 227 * 1024, report
    assert report["spilled"] <= 64 and report["wide writes"] == report["writes"] > 0, report
