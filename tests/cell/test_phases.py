"""A cell has the optional phases that it defines, and its step has no others."""

from typing import Any

import pytest

from mnemo_compile.cell import cell_config, cell_weights, OPTIONAL
from mnemo_compile.program import compile_cell
from tests.cells import cell_of
from tests.helpers import normal, relative, trajectory

PHASES = {
    "bare": set(),
    "lstm": set(),
    "adam": {"recall"},
    "trio": {"recall"},
    "tracks": {"encode", "recall"},
    "tiled": {"recall"},
    "mnemosyne": {"encode", "share", "recall"},
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


SMALL = {"kind": "mnemosyne", "token": 2, "random_features": 2, "momentum": [0.9], "prior": {"tile": 12}}
VARIED = {"agreement": True, "network_attention": True, "chunk_memory": 2, "adaptation": 0.5, "role_aware": True}
SHAPES = [(20, 13), (7,), (64, 3), (3, 3, 2, 5)]


@pytest.mark.parametrize(
    "settings", [pytest.param({}, id="plain"), pytest.param(VARIED, id="varied", marks=pytest.mark.slow)]
)
def test_a_cell_without_its_network_is_one_that_has_learned_nothing(settings: dict[str, Any]) -> None:
    bent, alone = (cell_config({**SMALL, **settings, "network": network}).build() for network in (True, False))
    params, history = normal(0, SHAPES), [normal(1 + step, SHAPES) for step in range(4)]
    options: Any = {"lr": 0.5, "weight_decay": 3.0, "total_steps": 9.0}
    expected, _ = trajectory(bent, SHAPES, params, history, **options)
    after, _ = trajectory(alone, SHAPES, params, history, **options)
    for start, x, y in zip(params, after, expected, strict=True):
        assert relative(x - start, y - start) <= 1e-5


def test_a_cell_without_its_network_pays_nothing_for_it() -> None:
    bent, alone = (cell_config({**SMALL, **VARIED, "network": network}).build() for network in (True, False))
    own, all_weights = cell_weights(alone), cell_weights(bent)
    assert own.keys() == {name for name in all_weights if not name.startswith("network.")} < all_weights.keys()
    compiled = compile_cell(alone)
    assert set(compiled.programs) == {"measure", "share", "recall", "update", "orthogonalise", "update_tiles"}
    assert {slot.name for slot in alone.memory_slots} < {slot.name for slot in bent.memory_slots}
    assert alone.initial_state().keys() < bent.initial_state().keys()
    assert not any(value.name.startswith("summary") for each in compiled.programs.values() for value in each.inputs)


def test_a_cell_without_tiles_has_no_phases_over_them() -> None:
    programs = compile_cell(cell_config({**SMALL, "network": False, "prior": {"tile": 0}}).build()).programs
    assert set(programs) == {"measure", "share", "recall", "update"}
