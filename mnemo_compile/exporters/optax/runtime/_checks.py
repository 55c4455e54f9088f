"""Checks of the user's inputs before anything is computed. Each error says what is wrong, where, and the fix."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._phases import MEMORY, NAME, STATE
from ._products import PRECISIONS

_SMALLEST_LR = 0.01
"""An `lr` below this is a learning rate of another optimizer."""


def check_options(
    *, lr: Any, weight_decay: Any, total_steps: Any, block_size: Any, pretrained: Any, precision: Any
) -> None:
    """Raises `ValueError` for impossible options. Arrays may be traced, so their values are not checked."""
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if isinstance(value, int | float | np.number) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    if isinstance(lr, int | float | np.number) and 0 < lr < _SMALLEST_LR:
        warnings.warn(
            f"lr is {lr}, and multiplies a step whose size is learned, so that almost nothing moves; leave lr out",
            stacklevel=3,
        )
    is_number = total_steps is not None and not isinstance(total_steps, jax.Array)
    if is_number and not _is_count(total_steps):
        raise ValueError(f"total_steps must be a positive integer, or None if it is not known, not {total_steps!r}")
    if isinstance(block_size, jax.Array):
        raise ValueError("block_size must not be traced; name it in the static_args of optax.inject_hyperparams")
    if block_size is not None and not _is_count(block_size):
        raise ValueError(f"block_size counts coordinates and must be a positive integer, or None, not {block_size!r}")
    if pretrained is not None and not isinstance(pretrained, bool | np.bool_ | jax.Array):
        raise ValueError(f"pretrained must be True or False, or None if it is not known, not {pretrained!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def floating_leaves(params: Any) -> list[jax.Array]:
    """The parameters in the order of the tree. One of another dtype raises `ValueError`."""
    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"the parameter {_named(path)} has dtype {jnp.result_type(leaf)} and only floating point can be "
                "trained; leave it out, or mask it with optax.masked"
            )
        leaves.append(leaf)
    return leaves


def check_gradients(grads: Any) -> None:
    """Raises `ValueError` for a gradient that is not of floating point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"the gradient at {_named(path)} has dtype {jnp.result_type(leaf)} and only floating point can be a "
                "gradient; give what jax.grad computes for the parameters"
            )


def leaves_like(params: Any, tree: Any, what: str, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """The arrays of a tree with the parameters' structure and these shapes. Any other tree raises `ValueError`."""
    expected = jax.tree_util.tree_leaves_with_path(params)
    actual = jax.tree_util.tree_leaves_with_path(tree)
    if jax.tree.structure(tree) != jax.tree.structure(params):
        raise ValueError(
            f"{what} are a tree{_difference(expected, actual)} that is not that of the parameters; give one like the "
            "params that init received, with None where a parameter is None"
        )
    for (path, array), shape in zip(actual, shapes, strict=True):
        if jnp.shape(array) != shape:
            raise ValueError(f"{what} have shape {jnp.shape(array)} at {_named(path)} where {shape} belongs")
    return [array for _, array in actual]


def labels_like(params: Any, roles: Any) -> list[str | None]:
    """The labels of the parameters in a tree of their structure. Any other tree raises `ValueError`."""
    leaves, structure = jax.tree.flatten(params, is_leaf=_is_nothing)
    try:
        labels = structure.flatten_up_to(roles)
        fits = all(_is_nothing(leaf) or _is_label(label) for leaf, label in zip(leaves, labels, strict=True))
    except (TypeError, ValueError):
        labels, fits = [], False
    if not fits:
        trees = (jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_nothing) for tree in (params, roles))
        raise ValueError(
            f"roles are a tree{_difference(*trees)} that is not that of the parameters; give a role or None for each "
            "of them, or a function of a parameter's path and array"
        )
    return [label for leaf, label in zip(leaves, labels, strict=True) if not _is_nothing(leaf)]


def _is_label(label: Any) -> bool:
    return label is None or jax.tree_util.all_leaves([label])


def _is_nothing(leaf: Any) -> bool:
    """Whether a place in a tree holds no parameter."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def _difference(expected: Sequence[Any], actual: Sequence[Any]) -> str:
    """The first place in which one of two trees lacks a leaf of the other."""
    ours, theirs = [_named(path) for path, _ in expected], [_named(path) for path, _ in actual]
    missing, spare = [p for p in ours if p not in theirs], [p for p in theirs if p not in ours]
    return f" without {missing[0]}" if missing else f" with {spare[0]}" if spare else ""


def check_state(state: Any, tensors: int) -> None:
    """Raises `ValueError` unless this is a state of this cell for this many tensors."""
    memory, recall = getattr(state, "memory", None), getattr(state, "recall", None)
    if not isinstance(memory, Mapping) or not isinstance(recall, Mapping):
        raise ValueError(f"the state is a {type(state).__name__} and not one that init of {NAME} gave")
    shapes = {name: tuple(jnp.shape(value)) for name, value in recall.items()}
    expected = {name: (tensors, *shape) for name, shape in STATE.items()}
    slots = [slot.name for slot in MEMORY]
    if set(memory) != set(slots) or shapes != expected:
        raise ValueError(
            f"the state is that of another cell or of other parameters: it has {_listed(memory, shapes)} where "
            f"{NAME} has {_listed(slots, expected)}; make one with init"
        )


def _listed(memory: Iterable[str], shapes: Mapping[str, Any]) -> str:
    rows = [f"{name} {shapes[name]}" for name in sorted(shapes)]
    return f"memory {', '.join(sorted(memory)) or 'without slots'} and recall {', '.join(rows) or 'without arrays'}"


def _named(path: Any) -> str:
    return jax.tree_util.keystr(path) or "(the only one)"
