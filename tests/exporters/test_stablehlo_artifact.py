"""The stablehlo export is programs of any number of coordinates for every platform, and says what runs them."""

import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import export

from mnemo_compile._layout import shape_facts
from mnemo_compile.artifact import FrozenCell
from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters.stablehlo import StableHloExporter
from mnemo_compile.program import compile_cell, Equation, PHASES, Program, Value
from tests.exporters.test_optax_cells import cell_of
from tests.helpers import trajectory


@pytest.fixture(scope="module")
def folder(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The artifact. Not to be written into."""
    folder = tmp_path_factory.mktemp("stablehlo")
    StableHloExporter().emit(frozen, compile_cell(frozen.cell()), folder)
    return folder


def load(path: pathlib.Path) -> export.Exported:
    return export.deserialize(bytearray(path.read_bytes()))


def functions(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.jaxexport"))}


def held(folder: pathlib.Path, param: np.ndarray) -> dict[str, Any]:
    initial: Any = load(folder / "init.jaxexport").call({"param": jnp.asarray(param)})
    return {"param": jnp.asarray(param), **initial}


FIXED = {"matrix": 0.0, "aspect": 1.0, "total_steps": 0.0, "lr": 1.0, "weight_decay": 0.0}


def fixed(**changes: float) -> dict[str, jax.Array]:
    return {name: jnp.float32(value) for name, value in (FIXED | changes).items()}


def test_every_function_runs_on_every_platform_and_has_a_free_size(folder: pathlib.Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(functions(folder)) == {"init", "update", *(f"phases/{name}" for name in PHASES)}
    assert manifest["programs"].keys() == functions(folder).keys()
    for name, path in functions(folder).items():
        exported = load(path)
        assert exported.platforms == ("cpu", "cuda", "rocm", "tpu") == tuple(manifest["platforms"])
        free = {str(n) for aval in exported.in_avals for n in aval.shape if export.is_symbolic_dim(n)}
        assert free == {"rows" if name.startswith("phases/") else "N"}
        assert not exported.disabled_safety_checks
        ((inputs,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        for group, avals in (("inputs", inputs), ("outputs", outputs)):
            given_ = {name: [[str(n) for n in aval.shape], str(aval.dtype)] for name, aval in avals.items()}
            entries = manifest["programs"][name][group]
            assert given_ == {e["name"]: [[str(n) for n in e["shape"]], e["dtype"]] for e in entries}
        # What other compilers read is the same program.
        assert path.with_suffix(".mlirbc").read_bytes() == bytes(exported.mlir_module_serialized)


def test_no_tensor_may_be_empty(folder: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="Expected value >= 1 for dimension variable 'N'"):
        load(folder / "init.jaxexport").call({"param": jnp.zeros(0)})


@pytest.mark.parametrize("coordinates", [1, 511, 5003])
def test_any_number_of_coordinates(folder: pathlib.Path, coordinates: int) -> None:
    update = jax.jit(load(folder / "update.jaxexport").call)
    before = held(folder, np.ones(coordinates, np.float32))
    grad = jnp.linspace(1, 2, coordinates)
    after = update({**before, **fixed(), "grad": grad})
    assert after["next.param"].shape == (coordinates,)
    assert np.all(np.isfinite(after["next.param"])) and np.all(after["next.param"] != 1)
    assert after["next.step"] == 1 and after["next.skipped"] == 0 and after["finite"]
    refused = update({**before, **fixed(), "grad": grad.at[-1].set(jnp.nan)})
    assert refused["next.step"] == 0 and refused["next.skipped"] == 1 and not refused["finite"]
    for name, value in before.items():
        if name not in ("skipped", "step"):
            np.testing.assert_array_equal(refused[f"next.{name}"], value)


SHAPES = [(), (23,), (33, 31)]


@pytest.fixture(scope="module")
def artifact_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The artifact of a kind of cell, and its step."""

    @functools.cache
    def artifact_of(kind: str) -> tuple[pathlib.Path, Callable[..., Any]]:
        folder = tmp_path_factory.mktemp(kind)
        StableHloExporter().emit(frozen, compile_cell(cell_of(kind)), folder)
        return folder, jax.jit(load(folder / "update.jaxexport").call)

    return artifact_of


@pytest.mark.parametrize(
    "kind", ["tracks", "adam", "lstm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bare", "mnemosyne"))]
)
@settings(max_examples=6, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    history=st.lists(st.sampled_from([0.0, 1.0, 1e12, np.nan]), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
    total_steps=st.sampled_from([0.0, 10.0]),
)
def test_update_takes_the_steps_of_the_cell(
    artifact_of: Any, kind: str, shape: tuple[int, ...], history: list[float], seed: int, total_steps: float
) -> None:
    folder, update = artifact_of(kind)
    random = np.random.default_rng(seed)
    param = np.asarray(random.normal(size=shape), np.float32)
    grads = [np.asarray(size * random.normal(size=shape), np.float32) for size in history]
    facts = shape_facts(shape)
    options = fixed(total_steps=total_steps, weight_decay=0.1, matrix=facts["matrix"], aspect=facts["aspect"])
    carried = held(folder, param.reshape(-1))
    for grad in grads:
        results = update({**carried, **options, "grad": jnp.asarray(grad.reshape(-1))})
        carried = {name: results[f"next.{name}"] for name in carried}
    (expected,), state = trajectory(
        cell_of(kind),
        [shape],
        [jnp.asarray(param)],
        [[jnp.asarray(grad)] for grad in grads],
        weight_decay=0.1,
        total_steps=total_steps,
    )
    true = np.asarray(expected).reshape(-1)
    assert np.linalg.norm(carried["param"] - true) <= 1e-5 * len(grads) * np.linalg.norm(true) + 1e-12
    assert carried["skipped"] == sum(np.isnan(size) for size in history)
    for name, chunks in state.memory.items():
        flat = np.asarray(chunks).reshape(-1, *chunks.shape[2:])[: param.size]
        np.testing.assert_allclose(carried[f"memory.{name}"], flat, rtol=1e-3, atol=1e-5 * np.abs(flat).max() + 1e-37)
    for name, rows in state.recall.items():
        np.testing.assert_allclose(carried[f"state.{name}"], np.asarray(rows)[0], rtol=1e-4, atol=1e-6)


def test_phases_that_no_step_needs_are_not_written(artifact_of: Any) -> None:
    for kind, phases in {"adam": {"measure", "recall", "update"}, "bare": {"measure", "update"}}.items():
        folder, _ = artifact_of(kind)
        assert {path.stem for path in (folder / "phases").iterdir()} == phases
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all((f"`{phase}`" in readme) == (phase in phases) for phase in ("encode", "recall", "probe"))


def test_what_padding_gives_does_not_leak(artifact_of: Any) -> None:
    """Of a short tensor, most sampled chunks are none; Tracks divides by the coordinates in each."""
    folder, update = artifact_of("tracks")
    param = np.ones(3, np.float32)
    after = update({**held(folder, param), **fixed(), "grad": jnp.ones(3)})
    assert all(np.all(np.isfinite(value)) for name, value in after.items() if name != "next.state.lowest")


def test_the_example_in_the_readme_runs_alone(folder: pathlib.Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-IB", "-c", example], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split("->"))
    assert after < before


def test_the_readme_names_every_input_phase_and_version(folder: pathlib.Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [entry["name"] for entry in manifest["programs"]["update"]["inputs"]]
    for name in (*names, *PHASES):
        assert f"`{name}`" in readme
    assert f"jax {jax.__version__}" in readme and f"StableHLO {manifest['stablehlo']}" in readme


def test_the_same_cell_gives_the_same_bytes_wherever_it_is_exported(
    folder: pathlib.Path, frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    # Other code has traced the same operations before, from other lines.
    jax.jit(lambda x: jnp.where(jnp.tanh(x) > 0, jnp.sum(x), jnp.log1p(x)))(jnp.ones(3))
    before = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    StableHloExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path)
    assert jax.config.jax_traceback_in_locations_limit == before  # pyright: ignore[reportAttributeAccessIssue]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 16
    for path in files:
        content = path.read_bytes()
        assert (tmp_path / path.relative_to(folder)).read_bytes() == content
        # Neither this checkout, nor where Python and its packages are.
        for place in (pathlib.Path(__file__).parents[2], pathlib.Path(jax.__file__).parents[1], pathlib.Path.home()):
            assert len(str(place)) < 2 or str(place).encode() not in content
        assert b".py" not in content or path.suffix == ".md"


def test_the_text_holds_every_function_and_no_walls_of_numbers(frozen: FrozenCell) -> None:
    text = StableHloExporter().text(frozen, compile_cell(frozen.cell()))
    assert re.findall(r"module @(\w+)", text) == ["jit_init", "jit_update", *(f"jit_{name}" for name in PHASES)]
    assert "stablehlo.tanh" in text and "loc(" not in text
    assert max(map(len, text.splitlines())) < 4000


def test_contractions_leave_no_precision_to_the_backend(frozen: FrozenCell) -> None:
    text = StableHloExporter().text(frozen, compile_cell(frozen.cell()))
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert dots and all("precision = [HIGHEST, HIGHEST]" in line for line in dots)


def copied(folder: pathlib.Path, target: pathlib.Path, **changes: Any) -> pathlib.Path:
    """The artifact with other entries in its manifest."""
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    manifest = json.loads((target / "manifest.json").read_text()) | changes
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"calling_convention": {"version": 99, "minimum": 90, "maximum": 99}, "jax": "1.2.3"},
            r"has calling convention 99 and .* reads up to \d+ and .*; run: pip install 'jax>=1\.2\.3'$",
        ),
        ({"stablehlo": "9.0.0", "jax": "1.2.3"}, r"StableHLO 9\.0\.0, and jax .*; run: pip install 'jax>=1\.2\.3'$"),
        (
            {"calling_convention": {"version": 1, "minimum": 1, "maximum": 1}, "jax": "0.4.1"},
            r"has calling convention 1 and .* export the cell again, or run: pip install 'jax==0\.4\.1'$",
        ),
        ({"schema_version": 7, "written_by": "9.9"}, r"follows schema 7, .* run: pip install 'mnemo-compile>=9\.9'$"),
        ({"stablehlo": "new"}, r"manifest\.json is not valid: stablehlo: "),
    ],
)
def test_what_this_jax_cannot_read_is_one_sentence_with_the_version_that_can(
    folder: pathlib.Path, frozen: FrozenCell, tmp_path: pathlib.Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MnemoError, match=message) as caught:
        StableHloExporter().open(frozen, copied(folder, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_an_artifact_that_is_incomplete_or_damaged_is_refused_in_a_sentence(
    folder: pathlib.Path, frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    damaged = copied(folder, tmp_path)
    (damaged / "update.jaxexport").write_bytes(b"\x10\x00\x00\x00 nothing that can be run")
    with pytest.raises(MnemoError, match=r"update\.jaxexport is not a function that jax exported \(.*\); export"):
        StableHloExporter().open(frozen, damaged)
    (damaged / "update.jaxexport").unlink()
    with pytest.raises(MnemoError, match=r"update\.jaxexport cannot be read \(No such file or directory\); export"):
        StableHloExporter().open(frozen, damaged)
    (damaged / "manifest.json").unlink()
    with pytest.raises(MnemoError, match=r"manifest\.json is missing"):
        StableHloExporter().open(frozen, damaged)


def test_a_primitive_that_cannot_be_said_is_named_with_its_line(frozen: FrozenCell, tmp_path: pathlib.Path) -> None:
    compiled = compile_cell(cell_of("bare"))
    value = Value("x", ("rows", 16), "float32")
    grad = compiled.programs["measure"].inputs[0]
    strange = Equation("sort", (grad,), (value,), {}, "mine.py:7")
    measure = Program("measure", (grad,), (), (strange,), (("moments.sum", value),))
    changed = dataclasses.replace(compiled, programs={**compiled.programs, "measure": measure})
    with pytest.raises(MnemoError, match=r"the primitive sort \(mine\.py:7\) cannot be said in stablehlo"):
        StableHloExporter().emit(frozen, changed, tmp_path)
