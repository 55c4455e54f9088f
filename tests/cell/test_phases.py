"""A cell has the optional phases that it defines, and its step has no others."""

from typing import Any

import pytest

from mnemo_compile.cell import cell_config, OPTIONAL
from mnemo_compile.program import compile_cell
from tests.cells import cell_of

PHASES = {
    "bare": set(),
    "lstm": set(),
    "adam": {"recall"},
    "trio": {"recall"},
    "tracks": {"encode", "recall"},
    "mnemosyne": {"encode", "recall"},
    "levels": {"encode", "share", "recall"},
    "everything": {"encode", "share", "recall"},
}


@pytest.mark.parametrize("kind", PHASES)
def test_a_phase_that_a_cell_does_not_define_is_no_part_of_its_step(kind: str) -> None:
    cell = cell_of(kind)
    assert cell.phases() == PHASES[kind]
    programs = compile_cell(cell).programs
    assert {name for name in programs if name in OPTIONAL} == PHASES[kind]
    assert {"measure", "update"} <= set(programs)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, False),
        ({"prior": {"reference_matrices": 3}}, True),
        ({"network_attention": True}, True),
        ({"prior": {"reference_width": 3, "reference_horizon": 3}, "agreement": True}, False),
    ],
)
def test_tensors_share_where_a_step_depends_on_the_whole_network(settings: dict[str, Any], shares: bool) -> None:
    assert ("share" in cell_config({"kind": "mnemosyne", **settings}).build().phases()) == shares
