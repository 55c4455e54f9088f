"""Exported optimizers for the process that exports them: written to a temporary folder, verified and imported."""

import atexit
import functools
import pathlib
import shutil
import tempfile
from types import ModuleType
from typing import Any, TYPE_CHECKING

from ..frozen import FrozenCell
from ._export import export
from .python import load_package, package_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import optax


def torch_class(frozen: FrozenCell) -> type[Any]:
    """The subclass `Mnemosyne` of `torch.optim.Optimizer`, which takes `params` and the options of the package."""
    return _imported(_Key(frozen), "torch").Mnemosyne


def optax_function(frozen: FrozenCell) -> "Callable[..., optax.GradientTransformationExtraArgs]":
    """The function `mnemosyne` that makes a gradient transformation from `lr`, `weight_decay` and other options."""
    return _imported(_Key(frozen), "optax").mnemosyne


class _Key:
    """Wraps a frozen cell, so that cells with the same name, version and digest are equal."""

    def __init__(self, frozen: FrozenCell):
        self.frozen = frozen
        self.identity = (frozen.name, frozen.version, frozen.digest)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Key) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@functools.cache
def _folder() -> str:
    # It lives as long as the process, because packages read their weights when they first need them.
    folder = tempfile.mkdtemp(prefix="mnemo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _imported(key: _Key, target: str) -> ModuleType:
    out = pathlib.Path(_folder()) / "-".join(key.identity)
    export(key.frozen, [target], out)
    return load_package(out / target / package_name(key.frozen))
