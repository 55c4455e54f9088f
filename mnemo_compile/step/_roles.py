"""The role of a tensor in its network, and how a tensor is read as matrices: by a label, else its name, else its shape.

Exported Python packages hold a copy of this file.
"""

import math
import re
from collections.abc import Sequence
from typing import get_args, Literal, NamedTuple

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
    shape, words = tuple(shape), _words(name)
    last = words.leaf in ("kernel", "w") if outputs_last is None else outputs_last
    if label is not None:
        return _by_label(shape, label, words, last)
    if _long_axes(shape) < 2:
        return Description("vector", None, "shape")
    return _by_name(shape, words, last) or _by_shape(shape, last)


def shape_role(shape: Sequence[int], outputs_last: bool = False) -> Role:
    """The role that follows from a shape alone. Axes of size 1 do not count.

    A matrix and its transpose have the same role. A head looks like a matrix or an embedding, and counts as one.
    """
    return _by_shape(tuple(shape), outputs_last).role


def _by_label(shape: tuple[int, ...], label: str, words: "_Words", outputs_last: bool) -> Description:
    if label not in ROLES:
        raise ValueError(f"the role of {_subject(words, shape)} must be one of {', '.join(ROLES)}, got {label!r}")
    least = {"matrix": 2, "convolution": 3}.get(label, 0)
    if len(shape) < least:
        raise ValueError(
            f"the role {label!r} needs {least} axes or more, which {_subject(words, shape)} does not have; "
            f"leave the role out, or take 'vector'"
        )
    if label == "convolution":
        return Description("convolution", _convolution(shape, outputs_last), "label")
    if label == "matrix":
        named = _by_name(shape, words, outputs_last)
        axes = named.axes if named and named.role == "matrix" else None
        return Description("matrix", axes or _matrices(shape), "label")
    return Description(ROLES[ROLES.index(label)], None, "label")


def _subject(words: "_Words", shape: tuple[int, ...]) -> str:
    return f"{words.name or 'a tensor'} of shape {shape}"


def _by_shape(shape: tuple[int, ...], outputs_last: bool) -> Description:
    long = sorted(size for size in shape if size != 1)
    if len(long) < 2:
        return Description("vector", None, "shape")
    if len(long) == 2:
        is_matrix = long[1] < EMBEDDING_ASPECT * long[0]
        return (
            Description("matrix", _matrices(shape), "shape") if is_matrix else Description("embedding", None, "shape")
        )
    if _is_small(shape, outputs_last):
        return Description("convolution", _convolution(shape, outputs_last), "shape")
    return _AMBIGUOUS


# How a shape is read


def _long_axes(shape: tuple[int, ...]) -> int:
    return sum(size != 1 for size in shape)


def _matrices(shape: tuple[int, ...], parts: tuple[int, ...] = ()) -> Axes:
    """The last two axes are matrices, and those before them a batch. Axes of size 1 do not count if two are left.

    A matrix is cut into equal squares if one axis is the other times a number of `parts`.
    """
    long = tuple(size for size in shape if size != 1)
    *batch, rows, columns = long if len(long) > 1 else (1, math.prod(shape[:-1]), shape[-1])
    count = math.prod(batch)
    if columns and rows in [part * columns for part in parts]:
        return _read((count * rows // columns, columns, columns), shape)
    if rows and columns in [part * rows for part in parts]:
        part = columns // rows
        return Axes((count, rows, part, rows), (0, 2, 1, 3), (count * part, rows, rows))
    return _read((count, rows, columns), shape)


def _read(sizes: tuple[int, int, int], shape: tuple[int, ...]) -> Axes:
    return Axes(shape, tuple(range(len(shape))), sizes)


def _space(shape: tuple[int, ...], outputs_last: bool) -> tuple[int, ...]:
    return shape[:-2] if outputs_last else shape[2:]


def _is_small(shape: tuple[int, ...], outputs_last: bool) -> bool:
    return max(_space(shape, outputs_last)) <= LARGEST_SPACE


def _convolution(shape: tuple[int, ...], outputs_last: bool) -> Axes:
    """Output channels × (input channels, then space, in torch's order)."""
    axes = tuple(range(len(shape)))
    order = (axes[-1], axes[-2], *axes[:-2]) if outputs_last else axes
    outputs, *inputs = (shape[axis] for axis in order)
    return Axes(shape, order, (1, outputs, math.prod(inputs)))


def _heads(shape: tuple[int, ...], is_output: bool) -> Axes:
    """Flax's attention: (in, heads, size) for queries, keys and values, and (heads, size, out) for the output."""
    *batch, a, b, c = shape
    rows, columns = (a * b, c) if is_output else (a, b * c)
    return _read((math.prod(batch), rows, columns), shape)


# What a name says


class _Words(NamedTuple):
    """The words of a path, in lower case: `SelfAttention.relative_bias` has self, attention, relative, bias."""

    name: str
    leaf: str
    """The last part of the path: `weight`, `kernel`, `pos_embed`."""
    path: tuple[tuple[str, ...], ...]
    """The words of each part but numbers and `weight`. So the last part is the layer, or the parameter itself."""
    is_item: bool
    """Whether the last part names a list, and the tensor belongs to an item, as in `classifier.1.weight`."""

    @property
    def last(self) -> tuple[str, ...]:
        return self.path[-1] if self.path else ()

    @property
    def parent(self) -> tuple[str, ...]:
        return self.path[-2] if len(self.path) > 1 else ()

    def has(self, words: frozenset[str]) -> bool:
        """Whether the last part has one of these words."""
        return not words.isdisjoint(self.last)

    def is_within(self, words: frozenset[str]) -> bool:
        """Whether any part has one of these words."""
        return any(not words.isdisjoint(part) for part in self.path)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LEAVES = _set("weight weights weight_v weight_orig kernel w")
"""Parameters that a layer of any kind has."""
_VALUES = _LEAVES | _set("embedding bias scale")
_WRAPPERS = _set("default modules_to_save original original0 original1 parametrizations")
"""Parts that libraries put behind a layer's name."""
_OUTER = _set("params model module base orig mod")
"""Words of parts that hold the whole network."""

_BIAS = _set("bias biases")
_NORM = _set("scale gamma beta gain offset norm ln bn layernorm batchnorm groupnorm rmsnorm")
_PLACE = _set("pos position positions positional rel relative table")
_LORA = _set("lora")
_DEPTHWISE = _set("depthwise dwconv dw")
_CONVOLUTION = _DEPTHWISE | _set("conv convs convolution deconv pwconv")
_PATCH = _set("patch patches")
_EXPERT = _set("expert experts")
_HEAD = _set("head heads classifier classifiers logits unembed unembedding")
_EMBEDDING = _PLACE | _set(
    "emb embs embed embeds embedding embeddings wte wpe token tokens prompt prompts latents lookup"
)
_EMBEDDINGS = _set("embs embeds embeddings prompts")
"""Words that name a list of embeddings."""
_LINEAR = _set("dense linear lin proj project projection mapping fc mlp ffn")
_DENSE = _LINEAR | _set("query key value q k v o out wi wo up down ff transform pooler reduction")
_GATES = _set("ih hh")

_HEADS = {
    ("score",),
    ("decoder",),
    ("qa", "outputs"),
    ("embed", "out"),
    ("vocab", "projector"),
    ("seq", "relationship"),
}
_OUTERMOST_HEADS = {("fc",), ("out",), ("output",), ("fc", "out"), ("output", "projection")}
"""Layers that are the head if they stand in no other layer, as `fc` of a ResNet."""
_INNER_HEADS = {("out", "proj"), ("fc",), ("linear",), ("decoder",), ("out",), ("output",)}
"""Layers that are the head if they stand in one, as `classifier.out_proj`."""
_THREE = {("c", "attn"), ("in", "proj", "weight"), ("query", "key", "value")}
_ATTENTION = {("query",), ("key",), ("value",), ("out",)}


def _words(name: str) -> _Words:
    parts = [part for part in re.split(r"[^0-9A-Za-z_]+", name) if part]
    if len(parts) > 1 and parts[-1] in ("value", "raw_value") and parts[-2] in _VALUES:
        parts.pop()  # A variable of Flax NNX keeps its array in a field of that name.
    while len(parts) > 1 and parts[-1] in _WRAPPERS:
        parts.pop()
    leaf = parts[-1] if parts else ""
    while parts and parts[-1] in _LEAVES | _WRAPPERS:
        parts.pop()
    path = [tuple(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)) for part in parts]
    path = [tuple(word.lower() for word in part) for part in path if part]
    return _Words(name, leaf, tuple(path), bool(parts) and parts[-1].isdigit())


def _by_name(shape: tuple[int, ...], words: _Words, outputs_last: bool) -> Description | None:
    """What a name says of a tensor with two axes or more, None if nothing."""
    if _is_vector(words):
        return Description("vector", None, "name")
    if words.is_within(_LORA):
        return _ELEMENTWISE if words.has(_EMBEDDING) else _dense(shape, outputs_last)
    if _is_convolution(words):
        return _ELEMENTWISE if words.has(_DEPTHWISE) else _kernel(shape, outputs_last)
    if words.is_within(_EXPERT):
        return _matrix(_matrices(shape))
    if _is_head(words):
        return Description("head", None, "name")
    if _is_embedding(words, len(shape)):
        return _ELEMENTWISE
    if words.leaf == "kernel" and words.last in _ATTENTION and len(shape) > 2:
        return _matrix(_heads(shape, words.last == ("out",)))
    if parts := _parts(words):
        return _matrix(_matrices(shape, parts)) if _long_axes(shape) < 4 else _AMBIGUOUS
    return _dense(shape, outputs_last) if words.has(_DENSE) else None


_ELEMENTWISE = Description("embedding", None, "name")
_AMBIGUOUS = Description("embedding", None, "ambiguous")


def _matrix(axes: Axes) -> Description:
    return Description("matrix", axes, "name")


def _dense(shape: tuple[int, ...], outputs_last: bool) -> Description | None:
    """A dense layer, or a stack of them, unless it may be a convolution that is named like one."""
    may_be_convolution = _long_axes(shape) > 2 and not outputs_last and _is_small(shape, outputs_last)
    return None if may_be_convolution else _matrix(_matrices(shape))


def _kernel(shape: tuple[int, ...], outputs_last: bool) -> Description:
    """A kernel that sees one place is a matrix."""
    if math.prod(_space(shape, outputs_last)) == 1:
        return _matrix(_matrices(shape))
    return Description("convolution", _convolution(shape, outputs_last), "name")


def _is_vector(words: _Words) -> bool:
    if words.has(_PLACE):
        return False
    return words.has(_BIAS) or (words.has(_NORM) and not words.has(_DENSE))


def _is_convolution(words: _Words) -> bool:
    in_patch = not _PATCH.isdisjoint((*words.parent, *words.last))
    return (in_patch or words.has(_CONVOLUTION)) and not words.has(_PLACE)


def _is_head(words: _Words) -> bool:
    if _names_head(words.last) or (_names_head(words.parent) and words.last in _INNER_HEADS):
        return True
    is_outermost = all(_OUTER.issuperset(part) for part in words.path[:-1])
    return not words.is_item and (words.last in _HEADS or (is_outermost and words.last in _OUTERMOST_HEADS))


def _names_head(part: tuple[str, ...]) -> bool:
    return bool(part) and part[-1] in _HEAD and part[0] != "pre"


def _is_embedding(words: _Words, axes: int) -> bool:
    """A layer's `kernel` is none, nor is a `weight` with more than two axes; a parameter of its own may be."""
    if words.leaf in ("kernel", "w") or (words.leaf in _LEAVES and axes > 2):
        return False
    if words.is_item and not words.has(_EMBEDDINGS):
        return False
    return words.last == ("shared",) or (words.has(_EMBEDDING) and not words.has(_LINEAR))


def _parts(words: _Words) -> tuple[int, ...]:
    """How many square matrices may stand beside each other in one tensor of this name."""
    if words.last in _THREE or words.has(_set("qkv wqkv")):
        return (3,)
    if words.has(_GATES):
        return (3, 4)
    return (2,) if words.has(_set("kv")) else ()
