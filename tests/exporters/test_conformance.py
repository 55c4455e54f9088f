"""Every cell in every target computes what it computes in float64, and Adam is the frameworks' own AdamW."""

import functools
import json
import pathlib
import tempfile
import types
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from mnemo_compile.cell import AbstractCell, AdamConfig, cell_config
from mnemo_compile.exporters import exporter_of, targets, verify_export
from mnemo_compile.exporters.python import load_package
from mnemo_compile.frozen import freeze, FrozenCell
from mnemo_compile.program import compile_cell, CompiledCell
from mnemo_compile.step import ROLES
from mnemo_compile.verify import DRIFT_BOUND, Reference, SCALES, SEGMENTS, STEP_BOUND, STEPS
from tests.cells import cell_of, variants
from tests.helpers import learned, learned_cell

SHAPES = [(), (7,), (33, 5), (1200,)]
RATE, DECAY = 2**-6, 2**-4
"""Their product is a power of two, so that AdamW's factor 1 − rate · decay is exact in float32."""

CELLS: dict[str, Callable[[], AbstractCell]] = {
    "mnemosyne": learned_cell,
    "mnemosyne-relu": lambda: learned_cell(kernel="relu"),
    "everything": lambda: cell_of("everything"),
    "prior": lambda: learned(cell_config({"kind": "mnemosyne", "network": False, "momentum": [0.9]}).build()),
    "memoryless": lambda: learned(cell_config({"kind": "mnemosyne", "network": False, "momentum": []}).build()),
    "coordinate-wise": lambda: learned(
        cell_config({"kind": "mnemosyne", "coordinate_wise": ROLES, "prior": {"tile": 0}}).build()
    ),
    "tiled": lambda: cell_of("tiled"),
    "levels": lambda: cell_of("levels"),
    "lstm": lambda: cell_config({"kind": "lstm", "seed": 5}).build(),
    "adam": lambda: cell_config({"kind": "adam"}).build(),
}
LONG = ("mnemosyne-relu", "coordinate-wise", "levels", "everything")
COMPILED = ("onnx", "optax", "stablehlo")
LONG_IN = {
    "mnemosyne": COMPILED,
    "memoryless": COMPILED,
    "lstm": ("optax", "stablehlo"),
    "tiled": ("optax", "stablehlo"),
}


class Subject:
    """A cell, compiled, and what it computes."""

    def __init__(self, cell: AbstractCell):
        self.cell = cell
        self.compiled: CompiledCell = compile_cell(cell)
        self.reference = Reference(cell, self.compiled)
        self.frozen: Any = types.SimpleNamespace(name="subject", version="1.0.0", digest="0" * 64, cell=lambda: cell)
        """Of a frozen cell, what an export writes down. Not every cell here has a configuration to be frozen by."""


SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def subject_of() -> Callable[[str], Subject]:
    """Each subject once for all targets."""
    return functools.cache(lambda name: Subject(CELLS[name]()))


@pytest.fixture
def subject(request: pytest.FixtureRequest, subject_of: Callable[[str], Subject]) -> Subject:
    return subject_of(request.param)


def subjects(name: str, target: str) -> Any:
    """A cell in a target, to be run always or at length."""
    is_long = name in LONG or target in LONG_IN.get(name, ())
    return pytest.param(name, target, marks=SLOW if is_long else ())


@pytest.mark.parametrize(
    ("subject", "target"), [subjects(name, target) for name in CELLS for target in targets()], indirect=["subject"]
)
def test_a_target_computes_what_the_cell_computes(subject: Subject, target: str, tmp_path: pathlib.Path) -> None:
    exporter = exporter_of(target)
    exporter.emit(subject.frozen, subject.compiled, tmp_path)
    report = subject.reference.compare(target, subject.frozen, exporter.open(subject.frozen, tmp_path))
    assert report.failure is None
    forms = {form for form in report.phases if form.startswith(("fused_", "kernel_"))}
    assert set(report.phases) - forms == {*subject.compiled.programs}
    assert {"fused_measure", "fused_update"} <= forms if target == "torch" else not forms
    assert report.steps == STEPS
    assert 0 < report.drift <= report.drift_bound and 0 < report.step_error <= report.step_bound
    is_rounded = any(slot.dtype == "bfloat16" for slot in subject.cell.memory_slots)
    assert is_rounded or (report.drift_bound, report.step_bound) == (DRIFT_BOUND, STEP_BOUND)


@SLOW
@hypothesis.given(variant=variants())
@hypothesis.settings(max_examples=4, deadline=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
def test_every_target_computes_what_any_variant_computes(variant: dict[str, Any]) -> None:
    one = Subject(learned(cell_config(variant).build()))
    for target in targets():
        with tempfile.TemporaryDirectory() as folder:
            exporter = exporter_of(target)
            exporter.emit(one.frozen, one.compiled, pathlib.Path(folder))
            report = one.reference.compare(target, one.frozen, exporter.open(one.frozen, pathlib.Path(folder)))
            assert report.failure is None, (target, report.failure)


@pytest.mark.parametrize("subject", ["mnemosyne", "adam"], indirect=True)
def test_the_inputs_are_what_the_report_says(subject: Subject) -> None:
    cases = [case for case in subject.reference.cases if case.phase == "measure"]
    assert [(case.regime, len(case.inputs["grad"])) for case in cases] == list(SEGMENTS)
    sizes = {case.regime: float(np.abs(case.inputs["grad"]).max()) for case in cases}
    for regime in ("huge", "tiny", "denormal", "enormous"):
        assert 0.1 * SCALES[regime] < sizes[regime] < 30 * SCALES[regime]
    assert sizes["zero"] == 0 and not np.isfinite(sizes["not finite"])
    assert sizes["denormal"] < np.finfo(np.float32).tiny
    grads = subject.reference.trajectory.grads
    broken = [step for step, tensors in enumerate(grads) if not all(np.isfinite(grad).all() for grad in tensors)]
    assert len(grads) == STEPS and broken == [STEPS // 3]


@SLOW
@pytest.mark.parametrize("target", targets())
def test_an_export_is_verified_again_from_its_own_folder(exported: pathlib.Path, target: str) -> None:
    written = json.loads((exported / target / "verification.json").read_text())
    again = verify_export(exported / target)
    assert again.passed
    assert again.model_dump(mode="json") == written
    assert written["truth"] == "float64"


@pytest.fixture(scope="module")
def adam() -> FrozenCell:
    config = AdamConfig(learning_rate=RATE, beta1=0.8, beta2=0.99, epsilon=1e-6)
    return freeze(config.build(), name="adam", version="1.0.0")


def package(frozen: FrozenCell, target: str, folder: pathlib.Path) -> ModuleType:
    exporter_of(target).emit(frozen, compile_cell(frozen.cell()), folder)
    return load_package(folder / "adam")


def history(steps: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        [np.asarray(random.normal(size=shape) * 10 ** random.uniform(-3, 1), np.float32) for shape in SHAPES]
        for _ in range(steps)
    ]


def assert_last_bits(given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for x, y in zip(given, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-6)


def test_adam_in_torch_is_torchs_adamw(adam: FrozenCell, tmp_path: pathlib.Path) -> None:
    ours, theirs = ([torch.nn.Parameter(torch.tensor(value) + 1) for value in history(1)[0]] for _ in range(2))
    optimizers = [
        package(adam, "torch", tmp_path).Mnemosyne(ours, weight_decay=DECAY),
        torch.optim.AdamW(theirs, lr=RATE, betas=(0.8, 0.99), eps=1e-6, weight_decay=DECAY),
    ]
    for grads in history(100):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            for param, grad in zip(params, grads, strict=True):
                param.grad = torch.tensor(grad)
            optimizer.step()
    assert_last_bits([param.detach().numpy() for param in ours], [param.detach().numpy() for param in theirs])


def test_adam_in_optax_is_optaxs_adamw(adam: FrozenCell, tmp_path: pathlib.Path) -> None:
    results = []
    for transformation in (
        package(adam, "optax", tmp_path).mnemosyne(weight_decay=DECAY),
        optax.adamw(RATE, b1=0.8, b2=0.99, eps=1e-6, weight_decay=DECAY),
    ):
        params = [jnp.asarray(value) + 1 for value in history(1)[0]]
        state = transformation.init(params)
        update = jax.jit(transformation.update)
        for grads in history(100):
            updates, state = update([jnp.asarray(grad) for grad in grads], state, params)
            params = optax.apply_updates(params, updates)
        results.append([np.asarray(value) for value in jax.tree.leaves(params)])
    assert_last_bits(*results)
