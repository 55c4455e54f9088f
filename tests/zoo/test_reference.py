"""References, and the versions that they accept."""

import pytest
from hypothesis import assume, given, strategies as st

from mnemo_compile.errors import UsageError
from mnemo_compile.zoo import is_reference, parse_reference, Version

NUMBERS = st.integers(0, 30)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, NUMBERS)


@given(version=VERSIONS)
def test_a_name_alone_accepts_every_version(version: Version) -> None:
    assert parse_reference("mnemosyne-tiny").accepts(version)


@given(asked=VERSIONS, there=VERSIONS)
def test_an_exact_version_accepts_itself(asked: Version, there: Version) -> None:
    assert parse_reference(f"a@{asked}").accepts(asked)
    assert parse_reference(f"a@{asked}").accepts(there) == (asked == there)


@given(asked=VERSIONS, there=VERSIONS)
def test_a_caret_keeps_the_first_number_that_is_not_zero(asked: Version, there: Version) -> None:
    assume(any(asked))
    kept = next(place for place, number in enumerate(asked) if number) + 1
    expected = there[:kept] == asked[:kept] and there >= asked
    assert parse_reference(f"a@^{asked}").accepts(there) == expected


@pytest.mark.parametrize(
    ("text", "lowest", "limit"),
    [
        ("a@^1", (1, 0, 0), (2, 0, 0)),
        ("a@^1.2", (1, 2, 0), (2, 0, 0)),
        ("a@^1.2.3", (1, 2, 3), (2, 0, 0)),
        ("a@^0", (0, 0, 0), (1, 0, 0)),
        ("a@^0.0", (0, 0, 0), (0, 1, 0)),
        ("a@^0.3", (0, 3, 0), (0, 4, 0)),
        ("a@^0.0.3", (0, 0, 3), (0, 0, 4)),
        ("a@^0.0.0", (0, 0, 0), (0, 0, 1)),
    ],
)
def test_carets_of_fewer_numbers(text: str, lowest: tuple[int, ...], limit: tuple[int, ...]) -> None:
    reference = parse_reference(text)
    assert (reference.lowest, reference.limit) == (lowest, limit)


@given(versions=st.lists(VERSIONS, min_size=1))
def test_versions_are_ordered_by_number(versions: list[Version]) -> None:
    assert sorted(versions) == sorted(versions, key=lambda v: v.major * 10_000 + v.minor * 100 + v.patch)


@pytest.mark.parametrize(
    "text",
    ["", "A", "a@", "a@1", "a@1.2", "a@~1", "a@>=1", "a@^", "a@1.0.0.0", "a@01.0.0", "a@١.0.0", "a b", "a@^1 ", "a\n"],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError, match="is not a reference; write name, name@1.2.0"):
        parse_reference(text)


@given(text=st.text(max_size=20))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        assert parse_reference(text).name
        assert is_reference(text)
    except UsageError:
        pass
