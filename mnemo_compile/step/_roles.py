"""The role of a tensor in its network, and how a tensor is read as matrices: by a label, else its name, else its shape.

Exported Python packages hold a copy of this file.
"""

import math
from collections.abc import Sequence
from typing import get_args, Literal, NamedTuple

from ._role_names import kind_of, parts_of, Words, words_of

Role = Literal["vector", "matrix", "embedding", "head", "convolution"]
"""The role of a tensor in its network."""
ROLES: tuple[Role, ...] = get_args(Role)
"""A cell receives a role as its place in this tuple."""

EMBEDDING_ASPECT = 16
"""By shape, a matrix whose longer axis is this many times the other counts as an embedding."""
LARGEST_SPACE = 32
"""By shape, a tensor counts as a convolution if its axes of space are at most this long."""

Reason = Literal["label", "name", "shape", "ambiguous"]
"""What a role follows from. `ambiguous` is a tensor of three axes or more that neither name nor shape explains."""


class Axes(NamedTuple):
    """How a tensor is read as a batch of matrices: `tensor.reshape(split).transpose(order).reshape(sizes)`."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    sizes: tuple[int, int, int]
    """Matrices, rows, columns."""


class Description(NamedTuple):
    """What an optimizer knows of a tensor before it sees a gradient."""

    role: Role
    axes: Axes | None
    """For a matrix and a convolution. The update of the other roles is elementwise."""
    reason: Reason


def describe(
    shape: Sequence[int], *, name: str = "", label: str | None = None, outputs_last: bool | None = None
) -> Description:
    """The role of a tensor, and the axes of its matrices.

    **Arguments:**

    - `shape`: the shape of the whole tensor, never of a shard.
    - `name`: its path in the network, in torch's, Flax's, Haiku's or Equinox's form: `encoder.layer.0.output.weight`,
      `['params']['Dense_0']['kernel']`, `.layers[0].weight`.
    - `label`: one of `ROLES` if the user chose the role.
    - `outputs_last`: whether a convolution has the order (space, in, out), and not torch's (out, in, space). None
      derives it from the name: kernels of Flax (`kernel`) and Haiku (`w`) have it.
    """
    shape, words = tuple(shape), words_of(name)
    last = words.outputs_last if outputs_last is None else outputs_last
    if label is not None:
        return _by_label(shape, label, words, last)
    if len(_long(shape)) < 2:
        return Description("vector", None, "shape")
    return _by_name(shape, words, last) or _by_shape(shape, last)


def shape_role(shape: Sequence[int], outputs_last: bool = False) -> Role:
    """The role that follows from a shape alone. Axes of size 1 do not count.

    A matrix and its transpose have the same role. A head looks like a matrix or an embedding, and counts as one.
    """
    return _by_shape(tuple(shape), outputs_last).role


def _by_label(shape: tuple[int, ...], label: str, words: Words, outputs_last: bool) -> Description:
    subject = f"{words.name or 'a tensor'} of shape {shape}"
    if label not in ROLES:
        raise ValueError(f"the role of {subject} must be one of {', '.join(ROLES)}, got {label!r}")
    role = ROLES[ROLES.index(label)]
    axes = 2 if role == "matrix" else 3 if role == "convolution" else 0
    if len(shape) < axes:
        raise ValueError(f"role {role!r} needs {axes} axes or more, and {subject} has {len(shape)}: leave its role out")
    if role == "matrix":
        named = _by_name(shape, words, outputs_last)
        return Description(role, named.axes if named and named.role == role else _matrices(shape), "label")
    return Description(role, _convolution(shape, outputs_last) if role == "convolution" else None, "label")


def _by_name(shape: tuple[int, ...], words: Words, outputs_last: bool) -> Description | None:
    kind = kind_of(words, len(shape))
    if kind == "vector" or kind == "embedding" or kind == "head":
        return Description(kind, None, "name")
    if kind == "convolution" and math.prod(_space(shape, outputs_last)) > 1:
        return Description("convolution", _convolution(shape, outputs_last), "name")
    if kind == "dense" and _may_be_convolution(shape, outputs_last):
        return None
    if kind == "fused" and len(_long(shape)) > 3:
        return Description("embedding", None, "ambiguous")
    if kind == "to heads" or kind == "from heads":
        return Description("matrix", _heads(shape, kind == "from heads"), "name")
    if kind is None:
        return None
    # What is left are dense layers, experts, and kernels of convolutions that see one place.
    return Description("matrix", _matrices(shape, parts_of(words) if kind == "fused" else ()), "name")


def _by_shape(shape: tuple[int, ...], outputs_last: bool) -> Description:
    long = _long(shape)
    if len(long) < 2:
        return Description("vector", None, "shape")
    if len(long) == 2:
        if max(long) >= EMBEDDING_ASPECT * min(long):
            return Description("embedding", None, "shape")
        return Description("matrix", _matrices(shape), "shape")
    if max(_space(shape, outputs_last)) <= LARGEST_SPACE:
        return Description("convolution", _convolution(shape, outputs_last), "shape")
    return Description("embedding", None, "ambiguous")


def _may_be_convolution(shape: tuple[int, ...], outputs_last: bool) -> bool:
    """Whether a tensor that is named like a dense layer may be a convolution in torch's order, and not a stack."""
    return len(_long(shape)) > 2 and not outputs_last and max(_space(shape, outputs_last)) <= LARGEST_SPACE


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _space(shape: tuple[int, ...], outputs_last: bool) -> tuple[int, ...]:
    return shape[:-2] if outputs_last else shape[2:]


def _convolution(shape: tuple[int, ...], outputs_last: bool) -> Axes:
    """Output channels × (input channels, then space, in torch's order)."""
    axes = tuple(range(len(shape)))
    order = (axes[-1], axes[-2], *axes[:-2]) if outputs_last else axes
    outputs, *inputs = (shape[axis] for axis in order)
    return Axes(shape, order, (1, outputs, math.prod(inputs)))


def _heads(shape: tuple[int, ...], from_heads: bool) -> Axes:
    """A kernel of Flax's attention: (in, heads, size) of queries, keys and values, or (heads, size, out)."""
    *batch, a, b, c = shape
    rows, columns = (a * b, c) if from_heads else (a, b * c)
    return _unmoved(shape, (math.prod(batch), rows, columns))


def _matrices(shape: tuple[int, ...], parts: tuple[int, ...] = ()) -> Axes:
    """The last two axes are matrices, and those before them a batch. Axes of size 1 do not count if two are left.

    A matrix is cut into squares beside each other if one axis is the other times one of `parts`.
    """
    long = _long(shape)
    *batch, rows, columns = long if len(long) > 1 else (math.prod(shape[:-1]), shape[-1])
    count = math.prod(batch)
    if columns and rows in [part * columns for part in parts]:
        return _unmoved(shape, (count * rows // columns, columns, columns))
    if rows and columns in [part * rows for part in parts]:
        part = columns // rows
        return Axes((count, rows, part, rows), (0, 2, 1, 3), (count * part, rows, rows))
    return _unmoved(shape, (count, rows, columns))


def _unmoved(shape: tuple[int, ...], sizes: tuple[int, int, int]) -> Axes:
    return Axes(shape, tuple(range(len(shape))), sizes)
