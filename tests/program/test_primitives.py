"""The table of primitives: a row's meaning, types and traits agree."""

import itertools
from typing import Any

import numpy as np
import pytest

from mnemo_compile.program import (
    apply,
    check,
    CLOSED_SET,
    Equation,
    evaluate,
    Literal,
    matrix_product,
    PRIMITIVES,
    Program,
    Trait,
    Value,
)
from tests.exporters.primitives import CASES, LOWERED_CASES, program, SMALL

ALL = [*CASES, *LOWERED_CASES]
IDS = [case[0] for case in ALL]


def arrays_of(case: Any) -> dict[str, np.ndarray]:
    return {f"x{i}": array for i, array in enumerate(case[1]) if not isinstance(array, Literal)}


def with_trait(trait: Trait) -> list[Any]:
    return [pytest.param(case, id=case[0]) for case in ALL if trait in PRIMITIVES[case[0]].traits]


def test_every_row_is_tested() -> None:
    assert PRIMITIVES.keys() == {*IDS, "einsum"}
    assert CLOSED_SET == {*(case[0] for case in CASES), "einsum"}


@pytest.mark.parametrize("case", ALL, ids=IDS)
def test_a_result_has_the_shape_and_the_dtype_that_follow_from_the_row(case: Any) -> None:
    phase = check(program(*case), "test")
    (equation,) = phase.equations
    arrays = [np.asarray(o.value, o.dtype) if isinstance(o, Literal) else o for o in case[1]][: len(equation.inputs)]
    rows = next(len(array) for array in case[1] if not isinstance(array, Literal))
    row = PRIMITIVES[equation.primitive]
    shape = tuple(rows if size == "rows" else int(size) for size in row.shape(equation))
    with np.errstate(all="ignore"):
        meant = np.asarray(row.meaning(equation, arrays, shape))
    assert meant.shape == shape
    result = evaluate(phase, arrays_of(case))["out"]
    assert (result.shape, str(result.dtype)) == (shape, row.dtype(equation))


@pytest.mark.parametrize("case", with_trait(Trait.COMMUTATIVE))
def test_a_commutative_primitive_takes_its_inputs_in_either_order(case: Any) -> None:
    (equation,) = program(*case).equations
    first, second = (np.asarray(o.value, o.dtype) if isinstance(o, Literal) else o for o in case[1])
    np.testing.assert_array_equal(
        apply(equation, [first, second], {"rows": len(first)}), apply(equation, [second, first], {"rows": len(first)})
    )


@pytest.mark.parametrize("case", with_trait(Trait.ELEMENTWISE))
def test_an_elementwise_primitive_works_on_each_place_by_itself(case: Any) -> None:
    phase = program(*case)
    whole = evaluate(phase, arrays_of(case))["out"]
    for i in (0, len(whole) // 2, len(whole) - 1):
        part = evaluate(phase, {name: array[i : i + 1] for name, array in arrays_of(case).items()})["out"]
        np.testing.assert_array_equal(part, whole[i : i + 1])


@pytest.mark.parametrize("case", with_trait(Trait.PLACES))
def test_a_primitive_of_places_takes_each_at_most_once(case: Any) -> None:
    (equation,) = program(*case).equations
    places = np.arange(SMALL.size, dtype=np.float32).reshape(SMALL.shape)
    taken = apply(equation, [places], {"rows": len(places)}).reshape(-1)
    assert len(np.unique(taken)) == len(taken) and np.isin(taken, places).all()
    is_part = len(taken) < places.size
    assert is_part == (Trait.CUT in PRIMITIVES[equation.primitive].traits)


def test_a_contraction_has_the_shape_of_its_letters() -> None:
    left, right, out = (
        Value("x", ("rows", 3), "float32"),
        Value("m", (4, 3), "float32"),
        Value("y", ("rows", 4), "float32"),
    )
    equation = Equation("einsum", (left, right), (out,), {"subscripts": "ab,cb->ac"}, "_cell.py:1")
    check(Program("p", (left, right), (), (equation,), (("y", out),)), "test")
    assert PRIMITIVES["einsum"].operations(equation) == 2 * 3 * 4


def test_a_batched_matrix_product_is_told_from_other_contractions() -> None:
    sizes, places = {"a": 2, "b": 3, "c": 4, "d": 5}, list(itertools.permutations("abcd", 3))
    for left, right in itertools.product(places, places):
        subscripts = f"{''.join(left)},{''.join(right)}->abd"
        is_product = (left[0], {*left[1:]}, right[0], {*right[1:]}) == ("a", {"b", "c"}, "a", {"c", "d"})
        turned = matrix_product(subscripts)
        assert (turned is not None) == is_product, subscripts
        if turned is not None:
            factors = [np.random.default_rng(0).normal(size=[sizes[k] for k in letters]) for letters in (left, right)]
            one, other = (np.swapaxes(x, 1, 2) if flips else x for x, flips in zip(factors, turned, strict=True))
            np.testing.assert_allclose(one @ other, np.einsum(subscripts, *factors), atol=1e-12)


@pytest.mark.parametrize("subscripts", ["abc,dbc->dac", "ab,bc->ac", "abc,abc->abc", "abc->abc", "abc,dec->abd"])
def test_what_is_no_batched_matrix_product_is_none(subscripts: str) -> None:
    assert matrix_product(subscripts) is None
