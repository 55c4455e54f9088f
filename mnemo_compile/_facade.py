"""A frozen cell as an optimizer, in one call."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, TYPE_CHECKING

from ._refs import load, Ref, source_of

if TYPE_CHECKING:
    from .verify import VerificationReport


def to_torch(ref: Ref, *, zoo: str | None = None) -> type[Any]:
    """A cell as a subclass of `torch.optim.Optimizer`.

    The first call compiles the cell and verifies the result, which takes half a minute. The cache keeps it for other
    processes, and from there optimizers are unpickled.

    **Arguments:**

    - `ref`: `name`, `name@1.2.0`, `name@^1`, the folder of a bundle or of a run, or a `FrozenCell`.
    - `zoo`: the folder or URL of a zoo; the zoo in this package by default.

    **Returns:**

    The class; it is constructed as `Mnemosyne(params, lr=1.0, weight_decay=0.0, total_steps=None)`. It takes the
    fastest way of the device unless `backend` says another.
    A cell that cannot be found, loaded or compiled raises `MnemoError`.
    """
    from .compiled import package_of

    return package_of("torch", source_of(ref, zoo)).Mnemosyne


def to_optax(ref: Ref, *, zoo: str | None = None) -> Callable[..., Any]:
    """A cell as a function that makes an `optax.GradientTransformation`.

    **Arguments:** the same as for `to_torch`, and so are the cost of the first call and the errors.

    **Returns:**

    The function; it is called as `mnemosyne(lr=1.0, weight_decay=0.0, total_steps=None)`.
    """
    from .compiled import package_of

    return package_of("optax", source_of(ref, zoo)).mnemosyne


def export(
    ref: Ref,
    target: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    zoo: str | None = None,
) -> "list[VerificationReport]":
    """Compiles a cell, verifies the result, and writes it.

    **Arguments:**

    - `ref`, `zoo`: the same as for `to_torch`.
    - `target`: `onnx`, `torch`, `optax`, `stablehlo` or `all`, or several of them.
    - `out`: the folder that gets a folder per target.

    **Returns:**

    The report of how each target compares with the reference.
    """
    from .exporters import export as export_frozen

    targets = (target,) if isinstance(target, str) else tuple(target)
    return export_frozen(load(ref, zoo), targets, pathlib.Path(out))
