"""A frozen cell as an optimizer, in one call."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, TYPE_CHECKING

from ._refs import load, Ref

if TYPE_CHECKING:
    from .verify import VerificationReport


def to_torch(ref: Ref, *, zoo: str | None = None) -> type[Any]:
    """A cell as a subclass of `torch.optim.Optimizer`.

    **Arguments:**

    - `ref`: `name`, `name@1.2.0`, `name@^1`, the folder of a bundle or of a run, or a `FrozenCell`.
    - `zoo`: the folder or URL of a zoo; the zoo in this package by default.

    **Returns:**

    The class; it is constructed as `Mnemosyne(params, lr=1.0, weight_decay=0.0, total_steps=None)`. With
    `compile=True` it updates large tensors with compiled functions, several times faster after the first step.
    """
    from .exporters import torch_class

    return torch_class(load(ref, zoo))


def to_optax(ref: Ref, *, zoo: str | None = None) -> Callable[..., Any]:
    """A cell as a function that makes an `optax.GradientTransformation`.

    **Arguments:** the same as for `to_torch`.

    **Returns:**

    The function; it is called as `mnemosyne(lr=1.0, weight_decay=0.0, total_steps=None)`.
    """
    from .exporters import optax_function

    return optax_function(load(ref, zoo))


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
