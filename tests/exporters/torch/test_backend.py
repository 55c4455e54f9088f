"""What updates tensors is chosen when the optimizer is made."""

import pathlib
import pickle
from types import ModuleType

import pytest
import torch


def _params() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(5, 3))]


def test_an_unknown_backend_is_refused_with_the_choices(tiled: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^backend must be one of torch, compiled, triton, or None .*, not 'eager'$"):
        tiled.Mnemosyne(_params(), backend="eager")


def test_a_backend_that_is_not_there_is_refused(tiled: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^the backend 'triton' is not available here, because .*; leave backend"):
        tiled.Mnemosyne(_params(), backend="triton")


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
