"""The cases at which verification compares phases over tiles."""

import numpy as np
import pytest

from mnemo_compile.program import compile_cell
from mnemo_compile.step import ROLES, TILED
from mnemo_compile.verify import SEGMENTS
from mnemo_compile.verify._cases import Case, phase_cases, TILE_ROWS, TILES
from mnemo_compile.verify._errors import polar_error
from mnemo_compile.verify._regimes import REFUSED
from tests.cells import cell_of
from tests.step.polynomials import true_polar

SHAPES = (*TILES, (12, 12))
"""The last is the largest tile of the cell."""
REGIMES = [(regime, min(rows, TILE_ROWS)) for regime, rows in SEGMENTS]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    cell = cell_of("tiled")
    return phase_cases(cell, compile_cell(cell), np.random.default_rng(0))


def test_every_regime_is_met_at_every_shape_of_tiles(cases: list[Case]) -> None:
    for phase, regimes in (
        ("orthogonalise", [(regime, rows) for regime, rows in REGIMES if regime not in REFUSED]),
        ("update_tiles", REGIMES),
    ):
        met = [
            (case.inputs["grad"].shape[1:], case.regime, len(case.inputs["grad"]))
            for case in cases
            if case.phase == phase
        ]
        assert met == [(shape, regime, rows) for shape in SHAPES for regime, rows in regimes]


def test_expected_directions_are_scaled_polar_factors_of_the_matrices(cases: list[Case]) -> None:
    checked = [case for case in cases if case.phase == "orthogonalise"]
    for case in checked:
        scales = np.sqrt(case.inputs["tile.side"].astype(np.float64))
        assert case.matrices is not None and len(case.matrices) == len(case.outputs) == 1 + (case.regime == "denormal")
        if case.regime not in ("denormal", "zero"):
            expected = scales[:, None, None] * true_polar(case.matrices[0])
            assert polar_error(case.outputs[0]["direction"], expected, case.matrices[0], scales) < 1e-9
    assert all(case.matrices is None for case in cases if case.phase != "orthogonalise")


def test_squares_of_tiny_tiles_are_zero_and_their_polar_factors_are_not(cases: list[Case]) -> None:
    tiny = [case for case in cases if case.phase == "orthogonalise" and case.regime == "tiny"]
    assert len(tiny) == len(SHAPES)
    for case in tiny:
        assert case.inputs["grad"].any() and not np.square(case.inputs["grad"]).any()
        assert np.linalg.norm(case.outputs[0]["direction"]) > 0.5


def test_the_update_of_chunks_meets_only_roles_without_tiles(cases: list[Case]) -> None:
    tiled = [ROLES.index(role) for role in TILED]
    met = {
        phase: [case.inputs["shape.role"] for case in cases if case.phase == phase] for phase in ("update", "recall")
    }
    assert met["update"] and not np.isin(np.concatenate(met["update"]), tiled).any()
    assert np.isin(np.concatenate(met["recall"]), tiled).any()
