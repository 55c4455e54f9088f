"""What the name of a tensor says of it, in the conventions of torch, Flax, Haiku, Equinox and the libraries on them.

Exported Python packages hold a copy of this file.
"""

import re
from typing import Literal, NamedTuple

Kind = Literal["vector", "embedding", "head", "convolution", "dense", "fused", "experts", "to heads", "from heads"]
"""What a tensor is. `to heads` and `from heads` are the kernels of Flax's attention, with an axis of heads."""


class Words(NamedTuple):
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
        """The words of the last part."""
        return self.path[-1] if self.path else ()

    @property
    def parent(self) -> tuple[str, ...]:
        """The words of the part before."""
        return self.path[-2] if len(self.path) > 1 else ()

    @property
    def outputs_last(self) -> bool:
        """Whether the name is Flax's or Haiku's, where the last axis is the output."""
        return self.leaf in ("kernel", "w")

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
_WRAPPERS = _set("default base_layer original_module modules_to_save original original0 original1 parametrizations")
"""Parts that peft and torch's parametrizations put behind a layer's name."""
_OUTER = _set("params model module base orig mod")
"""Words of parts that hold the whole network."""

_BIAS = _set("bias biases")
_NORM = _set("scale gamma beta gain offset norm ln bn layernorm batchnorm groupnorm rmsnorm")
_PLACE = _set("pos position positions positional rel relative table")
_LORA = _set("lora")
_CONVOLUTION = _set("conv convs convolution deconv dwconv pwconv depthwise pointwise")
_PATCH = _set("patch patches")
_EXPERT = _set("expert experts")
_HEAD = _set("head heads classifier classifiers logits unembed unembedding")
_EMBEDDING = _PLACE | _set("emb embs embed embeds embedding embeddings wte wpe token tokens prompt prompts latents")
_EMBEDDINGS = _set("embs embeds embeddings prompts")
"""Words that name a list of embeddings."""
_LINEAR = _set("dense linear lin proj project projection mapping fc mlp ffn")
_DENSE = _LINEAR | _set("query key value q k v o out wi wo up down ff transform pooler reduction")
_FUSED = _set("qkv wqkv kv ih hh")

_HEADS = {
    ("score",),
    ("decoder",),
    ("embed", "out"),
    ("qa", "outputs"),
    ("seq", "relationship"),
    ("vocab", "projector"),
}
_OUTERMOST_HEADS = {("fc",), ("out",), ("output",), ("fc", "out"), ("output", "projection")}
"""Layers that are the head if they stand in no other layer, as `fc` of a ResNet."""
_INNER_HEADS = {("out", "proj"), ("fc",), ("linear",), ("decoder",), ("out",), ("output",)}
"""Layers that are the head if they stand in one, as `classifier.out_proj`."""
_FUSED_LAYERS = {("c", "attn"), ("in", "proj", "weight"), ("query", "key", "value")}
_TO_HEADS = {("query",), ("key",), ("value",)}


def words_of(name: str) -> Words:
    """The words of a path such as `encoder.layer.0.output.weight` or `['params']['Dense_0']['kernel']`."""
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
    return Words(name, leaf, tuple(path), bool(parts) and parts[-1].isdigit())


def kind_of(words: Words, axes: int) -> Kind | None:
    """What a tensor with this number of axes is by its name, None if the name does not say it."""
    if _is_vector(words):
        return "vector"
    if words.is_within(_LORA):
        return "embedding" if words.has(_EMBEDDING) else "dense"
    if _is_convolution(words):
        return "convolution"
    if words.is_within(_EXPERT):
        return "experts"
    if _is_head(words):
        return "head"
    if _is_embedding(words, axes):
        return "embedding"
    return _dense_kind(words, axes)


def parts_of(words: Words) -> tuple[int, ...]:
    """How many square matrices a fused tensor of this name may hold: three or four for the gates of a recurrent net."""
    if words.has(_set("ih hh")):
        return (3, 4)
    return (2,) if words.has(_set("kv")) else (3,)


def _dense_kind(words: Words, axes: int) -> Kind | None:
    if words.leaf == "kernel" and axes > 2:
        if words.last in _TO_HEADS:
            return "to heads"
        if words.last == ("out",):
            return "from heads"
    if words.last in _FUSED_LAYERS or words.has(_FUSED):
        return "fused"
    return "dense" if words.has(_DENSE) else None


def _is_vector(words: Words) -> bool:
    if words.has(_PLACE):
        return False
    return words.has(_BIAS) or (words.has(_NORM) and not words.has(_DENSE | _FUSED))


def _is_convolution(words: Words) -> bool:
    in_patch = not _PATCH.isdisjoint((*words.parent, *words.last))
    return (in_patch or words.has(_CONVOLUTION)) and not words.has(_PLACE)


def _is_head(words: Words) -> bool:
    if _names_head(words.last) or (_names_head(words.parent) and words.last in _INNER_HEADS):
        return True
    is_outermost = all(_OUTER.issuperset(part) for part in words.path[:-1])
    return not words.is_item and (words.last in _HEADS or (is_outermost and words.last in _OUTERMOST_HEADS))


def _names_head(part: tuple[str, ...]) -> bool:
    return bool(part) and part[-1] in _HEAD and part[0] != "pre"


def _is_embedding(words: Words, axes: int) -> bool:
    """A layer's `kernel` is none, nor is a `weight` with more than two axes; a parameter of its own may be."""
    if words.outputs_last or (words.leaf in _LEAVES and axes > 2):
        return False
    if words.is_item and not words.has(_EMBEDDINGS):
        return False
    return words.last == ("shared",) or (words.has(_EMBEDDING) and not words.has(_LINEAR))
