"""The role of a tensor and its axes follow from a label, else its name, else its shape."""

import math
from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mnemo_compile.step import describe, Description, EMBEDDING_ASPECT, LARGEST_SPACE, ROLES, shape_role
from tests.step.parameters import PARAMETERS

NAMES = st.text(max_size=20) | st.sampled_from(
    [parameter.name for parameters in PARAMETERS.values() for parameter in parameters]
)
SHAPES = st.lists(st.integers(0, 5) | st.sampled_from([16, 48, 64]), max_size=5).map(tuple)
SMALL = SHAPES.filter(lambda shape: math.prod(shape) <= 20_000)
MATRICES = st.tuples(st.integers(0, 70), st.integers(0, 70)) | st.integers(2, 9).flatmap(
    lambda side: st.sampled_from([(side, 2 * side), (side, 3 * side), (side, 4 * side)])
)


def matrices(tensor: np.ndarray, description: Description) -> np.ndarray:
    """A tensor as a batch of matrices."""
    assert description.axes is not None
    split, order, sizes = description.axes
    return tensor.reshape(split).transpose(order).reshape(sizes)


def numbered(shape: Sequence[int]) -> np.ndarray:
    """A tensor whose coordinates all differ."""
    return np.arange(math.prod(shape)).reshape(shape)


@pytest.mark.parametrize("network", PARAMETERS)
def test_parameters_of_published_networks(network: str) -> None:
    for name, shape, role, sizes in PARAMETERS[network]:
        described = describe(shape, name=name)
        assert (described.role, described.axes and described.axes.sizes) == (role, sizes), name


@hypothesis.given(shape=SHAPES, name=NAMES)
def test_every_name_and_shape_has_a_description(shape: tuple[int, ...], name: str) -> None:
    described = describe(shape, name=name)
    assert (described.axes is not None) == (described.role in ("matrix", "convolution"))
    assert described.reason in ("name", "shape", "ambiguous")
    assert described == describe(list(shape), name=name)


@hypothesis.given(
    shape=SMALL.filter(lambda shape: len(shape) > 2),
    name=NAMES,
    label=st.sampled_from(["matrix", "convolution", None]),
    outputs_last=st.none() | st.booleans(),
)
def test_axes_hold_every_coordinate_once(
    shape: tuple[int, ...], name: str, label: str | None, outputs_last: bool | None
) -> None:
    described = describe(shape, name=name, label=label, outputs_last=outputs_last)
    hypothesis.assume(described.axes is not None)
    np.testing.assert_array_equal(np.sort(matrices(numbered(shape), described), axis=None), np.arange(math.prod(shape)))


@hypothesis.given(shape=MATRICES, name=NAMES)
def test_a_transposed_matrix_has_the_same_role_and_transposed_matrices(shape: tuple[int, int], name: str) -> None:
    """So the order of a dense layer's axes need not be known: torch has (out, in), JAX has (in, out)."""
    one, other = describe(shape, name=name), describe(shape[::-1], name=name)
    assert (one.role, one.reason) == (other.role, other.reason)
    if one.axes is not None:
        tensor = numbered(shape)
        np.testing.assert_array_equal(matrices(tensor, one).swapaxes(1, 2), matrices(tensor.T, other))


@hypothesis.given(shape=st.lists(st.integers(1, 4), min_size=3, max_size=5).map(tuple), seed=st.integers(0, 9))
def test_a_kernel_gives_the_same_matrix_in_the_order_of_torch_and_of_flax(shape: tuple[int, ...], seed: int) -> None:
    hypothesis.assume(math.prod(shape[2:]) > 1 and math.prod(shape) > max(shape))
    torch = np.random.default_rng(seed).normal(size=shape)
    flax = np.moveaxis(torch, (1, 0), (-2, -1))
    one, other = describe(torch.shape, name="conv.weight"), describe(flax.shape, name="['Conv_0']['kernel']")
    assert one.role == other.role == "convolution"
    np.testing.assert_array_equal(matrices(torch, one), matrices(flax, other))
    np.testing.assert_array_equal(matrices(torch, one)[0], torch.reshape(len(torch), -1))
    named = describe(flax.shape, name="conv.weight", outputs_last=True)
    np.testing.assert_array_equal(matrices(torch, one), matrices(flax, named))


@pytest.mark.parametrize(
    "name", ["h.0.attn.c_attn.weight", "attn.qkv.weight", "mha.in_proj_weight", "attn.Wqkv.weight", "qkv/kernel"]
)
def test_a_fused_matrix_is_three_matrices_whichever_axis_holds_them(name: str) -> None:
    parts = np.random.default_rng(0).normal(size=(3, 6, 6))
    for fused, expected in ((parts.reshape(18, 6), parts), (np.concatenate(list(parts), axis=1), parts)):
        np.testing.assert_array_equal(matrices(fused, describe(fused.shape, name=name)), expected)


def test_kernels_of_flax_attention_are_the_matrices_of_torch() -> None:
    enter, leave = np.random.default_rng(0).normal(size=(2, 12, 12))
    for name, tensor, expected in (("query", enter.reshape(12, 3, 4), enter), ("out", leave.reshape(3, 4, 12), leave)):
        described = describe(tensor.shape, name=f"['attention']['{name}']['kernel']")
        np.testing.assert_array_equal(matrices(tensor, described), expected[None])


@hypothesis.given(shape=SHAPES, name=NAMES, label=st.sampled_from(ROLES))
def test_a_label_decides_or_is_refused_in_one_sentence(shape: tuple[int, ...], name: str, label: str) -> None:
    if len(shape) >= {"matrix": 2, "convolution": 3}.get(label, 0):
        described = describe(shape, name=name, label=label)
        assert (described.role, described.reason) == (label, "label")
        assert (described.axes is not None) == (label in ("matrix", "convolution"))
    else:
        with pytest.raises(ValueError, match=rf"role '{label}' needs \d axes or more"):
            describe(shape, name=name, label=label)


def test_a_label_that_is_no_role_is_refused_with_the_roles() -> None:
    with pytest.raises(ValueError, match=r"the role of a\.weight of shape \(2, 3\) must be one of vector, .*'conv'"):
        describe((2, 3), name="a.weight", label="conv")


@hypothesis.given(shape=SHAPES, outputs_last=st.booleans())
def test_without_a_name_the_shape_decides(shape: tuple[int, ...], outputs_last: bool) -> None:
    described = describe(shape, outputs_last=outputs_last)
    assert described.role == shape_role(shape, outputs_last)
    long = sorted(size for size in shape if size != 1)
    space = max(shape[:-2] if outputs_last else shape[2:], default=0)
    if len(long) < 2:
        assert described.role == "vector"
    elif len(long) == 2:
        assert described.role == ("matrix" if long[1] < EMBEDDING_ASPECT * long[0] else "embedding")
    else:
        assert described.role == ("convolution" if space <= LARGEST_SPACE else "embedding")
        assert described.reason == ("shape" if space <= LARGEST_SPACE else "ambiguous")


def test_the_name_of_a_byte_embedding_saves_it() -> None:
    assert describe((256, 128)).role == "matrix"
    assert describe((256, 128), name="wte.weight").role == "embedding"
