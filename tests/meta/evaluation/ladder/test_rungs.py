"""The ladders that ship, and what a file of rungs may say."""

import math
import pathlib

import click
import pytest

from mnemo_compile.cli._eval import evaluate
from mnemo_compile.errors import UsageError
from mnemo_compile.meta.evaluation.ladder import CHOICES, is_ladder, Ladder, LARGE, load_ladder, Rung
from mnemo_compile.meta.evaluation.ladder._rungs import select

AXES = {
    "centre": set(),
    "width": {"width", "widths", "channels"},
    "depth": {"depth", "residual_blocks"},
    "horizon": {"steps"},
    "batch": {"batch"},
    "initialisation": {"initialisation"},
    "option": set(),
}
"""Keys that differ from the centre's along each axis."""


def parameters(rung: Rung) -> int:
    return sum(math.prod(shape) for shape in rung.family.build().shapes)


def flat(rung: Rung) -> dict[str, object]:
    family = {**rung.family.network.model_dump(), "data": rung.family.data, "steps": rung.task.steps}
    return {**family, "batch": rung.batch, "initialisation": rung.family.initialisation}


def test_half_of_the_rungs_only_report() -> None:
    rungs = load_ladder().rungs
    assert len(rungs) <= 24
    assert len(select(load_ladder(), "choose")) == len(select(load_ladder(), "report")) == len(rungs) / 2
    assert {rung.half for rung in load_ladder("ladder", LARGE).rungs} == {"report"}


def test_a_rung_differs_from_its_centre_along_its_axis() -> None:
    rungs = load_ladder().rungs
    centres = {rung.network: flat(rung) for rung in rungs if rung.axis == "centre"}
    assert set(centres) == {rung.network for rung in rungs} and len(centres) == 4
    for rung in rungs:
        axes = rung.axis.split(", ")
        changed = {key for key, value in flat(rung).items() if value != centres[rung.network][key]}
        allowed = set().union(*(AXES[axis] for axis in axes))
        # Some of the dearest take fewer steps.
        assert changed - {"steps"} <= allowed
        assert changed or rung.axis in ("centre", "option")
        assert rung.options.is_plain or rung.axis == "option"


def test_the_ladders_reach_the_sizes_that_they_claim() -> None:
    sizes = {rung.name: parameters(rung) for rung in load_ladder().rungs}
    assert sizes["decoder-width-320"] == max(sizes.values()) > 4.9e6
    steps = [rung.task.steps for rung in load_ladder().rungs]
    batches = [rung.batch for rung in load_ladder().rungs]
    assert (min(steps), max(steps), min(batches), max(batches)) == (100, 3000, 4, 512)
    large = {rung.name: parameters(rung) for rung in load_ladder("ladder", LARGE).rungs}
    assert max(large.values()) > 99e6
    assert large["gpt-11m"] == pytest.approx(10.9e6, rel=0.01) and large["gpt-86m"] == pytest.approx(85.8e6, rel=0.01)


def test_the_digest_is_of_what_is_trained(ladder: Ladder) -> None:
    line = ladder.rungs[0]
    assert line.model_copy(update={"half": "report", "axis": "width"}).digest == line.digest
    renamed = line.model_copy(update={"task": line.task.model_copy(update={"name": "other"})})
    assert renamed.digest == line.digest
    assert line.model_copy(update={"seed": 9}).digest != line.digest
    longer = line.model_copy(update={"task": line.task.model_copy(update={"steps": 200})})
    assert longer.digest != line.digest


def test_a_ladder_is_told_from_a_suite(path: pathlib.Path, suite: str) -> None:
    assert is_ladder("ladder") and is_ladder(str(path))
    assert not is_ladder("valid") and not is_ladder(suite) and not is_ladder("no-such-file.toml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('network = "text"', 'network = "txt"', "there is no network 'txt'; there are line, text"),
        ("seed = 3", "seed = 1", "two rungs have the seed 1"),
        ("steps = 100", "steps = 150", "multiple of 100"),
        ('half = "choose"', 'half = "chose"', "choose"),
        ("batch = 8", "batch = 0", "batch"),
        ("{ network = { widths = [6] } }", "{ kind = 'quadratic', dimension = 3 }", "extra|Extra|kind"),
        ("about", "about = ", "Invalid"),
    ],
)
def test_an_error_names_what_is_wrong(path: pathlib.Path, before: str, after: str, message: str) -> None:
    text = path.read_text()
    assert before in text
    other = path.with_name(f"other-{abs(hash(after))}.toml")
    other.write_text(text.replace(before, after, 1))
    with pytest.raises(UsageError, match=message) as error:
        load_ladder(str(other))
    assert "\n" not in str(error.value)


def test_a_rung_that_is_not_there(ladder: Ladder) -> None:
    with pytest.raises(UsageError, match="has no rung 'wide' here; it has line, line-wide, text"):
        select(ladder, "all", ["wide"])
    with pytest.raises(UsageError, match="has no rung 'line' here; it has line-wide, text"):
        select(ladder, "report", ["line"])
    with pytest.raises(UsageError, match="cannot read"):
        load_ladder("no-such-file.toml")


def test_the_command_line_offers_every_choice_of_rungs() -> None:
    (option,) = [option for option in evaluate.params if option.name == "rungs"]
    assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == CHOICES
