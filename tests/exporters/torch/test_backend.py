"""What updates tensors is chosen when the optimizer is made."""

import functools
import pathlib
import pickle
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor


def _params() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(5, 3))]


def test_an_unknown_backend_is_refused_with_the_choices(tiled: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^backend must be one of torch, compiled, triton, or None .*, not 'eager'$"):
        tiled.Mnemosyne(_params(), backend="eager")


def test_compiled_functions_need_a_compiler(
    tiled: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    with pytest.raises(ValueError, match=r"^the backend 'compiled' is not available here, because there is no C\+\+"):
        tiled.Mnemosyne(_params(), backend="compiled")
    tiled.Mnemosyne(_params())


def test_a_group_that_is_refused_is_not_added(tiled: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = tiled.Mnemosyne(_params(), backend="compiled")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="the backend 'compiled' is not available"):
        optimizer.add_param_group({"params": _params()})
    assert len(optimizer.param_groups) == 1


def test_a_pickled_optimizer_keeps_its_backend(tiled: ModuleType) -> None:
    optimizer = tiled.Mnemosyne(_params(), backend="torch")
    assert pickle.loads(pickle.dumps(optimizer))._backend == "torch"


SHAPES = [(300, 8), (9,), (20, 16), (4099,)]
COMPILES = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


def _train(optimizer: Any, params: list[Any], steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    return [param.detach().clone() for param in params]


def _drawn() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.fixture
def small_is_large(tiled: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Makes torch's compiler one with this backend, which a few coordinates are enough for."""

    def compile_with(backend: Any) -> None:
        monkeypatch.setattr(tiled._step, "_compiled", functools.partial(torch.compile, fullgraph=True, backend=backend))

    monkeypatch.setattr(tiled._backend, "LARGE", 100)
    monkeypatch.setattr(tiled._backend, "_failures", [])
    torch._dynamo.reset()
    yield compile_with
    torch._dynamo.reset()


@COMPILES
def test_large_networks_on_a_cpu_are_compiled_by_default(
    tiled: ModuleType, small_is_large: Callable[[Any], None]
) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    small_is_large(backend)
    plain, params = _drawn(), _drawn()
    expected = _train(tiled.Mnemosyne(plain, block_size=1024, backend="torch"), plain, 3)
    assert not graphs
    for left, right in zip(_train(tiled.Mnemosyne(params, block_size=1024), params, 3), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    # One for the moments and one for the update.
    assert len(graphs) == 2


@COMPILES
@pytest.mark.parametrize("works", [0, 1], ids=["moments", "update"])
def test_where_the_compiler_fails_other_operations_take_the_step(
    tiled: ModuleType, small_is_large: Callable[[Any], None], caplog: pytest.LogCaptureFixture, works: int
) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        if len(graphs) > works:
            raise OSError("the disk is full")
        return graph.forward

    small_is_large(backend)
    plain, params, chosen = _drawn(), _drawn(), _drawn()
    expected = _train(tiled.Mnemosyne(plain, block_size=1024, backend="torch"), plain, 3)
    optimizer = tiled.Mnemosyne(params, block_size=1024)
    for left, right in zip(_train(optimizer, params, 3), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    assert optimizer._counters["step"] == 3
    (message,) = (record.getMessage() for record in caplog.records if record.name == tiled._backend.__name__)
    assert "torch.compile fails" in message and "the disk is full" in message

    # Who asks for it is told, and nothing is written.
    graphs.clear()
    torch._dynamo.reset()
    optimizer = tiled.Mnemosyne(chosen, block_size=1024, backend="compiled")
    with pytest.raises(RuntimeError, match=r"torch\.compile fails .*choose backend='torch'"):
        _train(optimizer, chosen, 1)
    for left, right in zip(chosen, _drawn(), strict=True):
        assert torch.equal(left, right)
    for state in optimizer.state.values():
        fresh = tiled._step.initial_state(torch.device("cpu"), torch.float32)
        assert torch.equal(state["recall"], fresh["recall"])


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_small_network_waits_for_no_other_thread(tiled: ModuleType) -> None:
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in [(256, 256), (1000, 50), (90000,), (256,)]]
    optimizer = tiled.Mnemosyne(params, backend="torch")
    _train(optimizer, params, 1)
    # Threads that drawing the numbers has woken go on for a while.
    time.sleep(0.5)
    own, all_ = time.thread_time(), time.process_time()
    for _ in range(5):
        optimizer.step()
    own, all_ = time.thread_time() - own, time.process_time() - all_
    assert all_ < 1.2 * own
    assert torch.get_num_threads() == 2
