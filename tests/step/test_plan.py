"""The plan of a step is whole, is written once, and is what exported packages hold."""

import ast
import pathlib
import types
from typing import Any

import pytest

import mnemo_compile
from mnemo_compile.cell import OPTIONAL
from mnemo_compile.exporters import exporter_of
from mnemo_compile.program import compile_cell
from mnemo_compile.step import CARRIED, FIELDS, group_of, is_lasting, OF_PARTS, PHASES, PLAN
from mnemo_compile.step.reference import phases_of
from tests.cells import cell_of

PACKAGE = pathlib.Path(mnemo_compile.__file__).parent
COPIES = ("_layout.py", "_plan.py", "_role_names.py", "_roles.py")
"""Files of `step` that exported packages hold too."""
NAMED: Any = types.SimpleNamespace(name="subject", version="1.0.0", digest="0" * 64)


def test_a_phase_reads_only_what_there_is_by_then() -> None:
    groups = {*OF_PARTS, *FIELDS, "state"} - {"direction"}
    for phase in PLAN:
        assert set(phase.reads) <= groups, phase.name
        assert not (set(phase.gives) - set(CARRIED)) & groups, "a group is given once"
        groups |= set(phase.gives) - set(CARRIED)
        groups |= {"finite"} if phase.decides else set()
    assert {group for phase in PLAN for group in phase.gives} >= set(CARRIED)


def test_rows_and_sums_fit() -> None:
    assert len(PHASES) == len(PLAN)
    for phase in PLAN:
        assert (phase.rows == "tensors") or phase.reduce != "network"
        assert (phase.rows != "tensors") or phase.reduce != "tensor"
        # A phase over the sample sees too little to move a tensor.
        assert phase.rows != "sample" or phase.reduce == "tensor"
        assert phase.reduce is None or not set(phase.gives) & set(CARRIED)
        assert not phase.decides or phase.reduce == "tensor"


def test_what_a_step_carries_on_and_what_decides_is_lasting() -> None:
    for phase in PLAN:
        for group in phase.gives:
            assert is_lasting(phase, f"{group}.x") == (group in CARRIED or phase.decides)
    assert group_of("memory.fast") == "memory" and group_of("param") == "param"


@pytest.mark.parametrize("kind", ["bare", "adam", "trio", "tracks", "levels", "tiled", "lstm", "mnemosyne"])
def test_a_cell_has_the_phases_whose_methods_it_defines(kind: str) -> None:
    cell = cell_of(kind)
    names = [phase.name for phase in phases_of(cell)]
    assert names == [name for name in PHASES if name in names]
    tiles = {phase.name for phase in PLAN if phase.rows == "tiles"} if not cell.tile else set()
    assert set(PHASES) - set(names) == set(OPTIONAL) - cell.phases() | tiles
    assert set(compile_cell(cell).programs) <= set(names)


@pytest.mark.parametrize("target", ["torch", "optax"])
def test_an_exported_package_holds_plan_layout_and_roles_as_they_are(target: str, tmp_path: pathlib.Path) -> None:
    exporter_of(target).emit(NAMED, compile_cell(cell_of("adam")), tmp_path)
    for name in COPIES:
        assert (tmp_path / "subject" / name).read_bytes() == (PACKAGE / "step" / name).read_bytes()


def test_plan_layout_and_roles_need_numpy_alone() -> None:
    for name in COPIES:
        for node in ast.walk(ast.parse((PACKAGE / "step" / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.level or f"{node.module}.py" in COPIES
            if isinstance(node, ast.Import):
                modules = {alias.name for alias in node.names}
                assert modules <= {"numpy", "dataclasses", "functools", "math", "re"}


def test_no_runtime_names_a_phase() -> None:
    """Exports name only `share` and `update`, which are also functions of theirs, and `recall` for its state."""
    places = {
        (str(file.relative_to(PACKAGE)), node.value)
        for folder in ("exporters", "program", "verify")
        for file in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in PHASES
    }
    allowed = {
        ("exporters/one_tensor/", "share"),
        ("exporters/one_tensor/", "update"),
        ("exporters/onnx/_ex", "share"),
        ("exporters/onnx/_ex", "update"),
        ("exporters/onnx/_graphs.py", "share"),
        ("exporters/onnx/_graphs.py", "update"),
        ("exporters/stablehlo/_", "share"),
        ("exporters/stablehlo/_", "update"),
        ("exporters/torch/runtime/", "recall"),
        ("exporters/optax/runtime/_checks.py", "recall"),
    }
    others = {(file, name) for file, name in places if not any(file.startswith(a) and name == n for a, n in allowed)}
    assert others == set()
