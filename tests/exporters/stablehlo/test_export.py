"""The stablehlo export is programs for tensors of any sizes and every platform, and says what runs them."""

import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import export

from mnemo_compile.cell import AbstractCell
from mnemo_compile.errors import MnemoError
from mnemo_compile.exporters.stablehlo import StableHloExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell, Equation, Program, Value
from tests.cells import cell_of
from tests.exporters.one_tensor import assert_takes_the_steps, numbers_of, TOGETHER, view_of


@pytest.fixture(scope="module")
def folder(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The export. Not to be written into."""
    folder = tmp_path_factory.mktemp("stablehlo")
    StableHloExporter().emit(frozen, compile_cell(frozen.cell()), folder)
    return folder


@pytest.fixture(scope="module")
def paths(frozen: FrozenCell) -> list[str]:
    """Of the functions, in the order of the text."""
    phases = list(compile_cell(frozen.cell()).programs)
    functions = ["init", "share", "update"] if "share" in phases else ["init", "update"]
    kinds = ["", "_matrix"] if "orthogonalise" in phases else [""]
    return [f"{name}{kind}" for kind in kinds for name in functions] + [f"phases/{name}" for name in phases]


def load(path: pathlib.Path) -> export.Exported:
    return export.deserialize(bytearray(path.read_bytes()))


def functions(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.jaxexport"))}


def held(folder: pathlib.Path, param: np.ndarray, kind: str = "") -> dict[str, Any]:
    initial: Any = load(folder / f"init{kind}.jaxexport").call({"param": jnp.asarray(param)})
    return {"param": jnp.asarray(param), **initial}


OPTIONS = {"lr": 1.0, "total_steps": 10.0, "weight_decay": 0.1}


def taken(folder: pathlib.Path, path: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that a function takes."""
    entries = json.loads((folder / "manifest.json").read_text())["programs"][path]["inputs"]
    return {entry["name"]: inputs[entry["name"]] for entry in entries if entry["name"] in inputs}


def told(folder: pathlib.Path, shape: tuple[int, ...], options: Mapping[str, float], kind: str = "") -> dict[str, Any]:
    """What every step of a tensor is told."""
    return taken(folder, f"update{kind}", numbers_of(shape, options))


def test_every_function_runs_on_every_platform_and_has_a_free_size(folder: pathlib.Path, paths: list[str]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(functions(folder)) == set(paths)
    assert manifest["programs"].keys() == functions(folder).keys()
    for name, path in functions(folder).items():
        exported = load(path)
        assert exported.platforms == ("cpu", "cuda", "rocm", "tpu") == tuple(manifest["platforms"])
        free = {str(n) for aval in exported.in_avals for n in aval.shape if export.is_symbolic_dim(n)}
        tile = {"height", "width"} if name in ("phases/orthogonalise", "phases/update_tiles") else set()
        in_step = {"batch", "rows", "columns"}
        # The number of chunks is an expression.
        assert {n for n in free if n.isidentifier()} == ({"rows"} | tile if name.startswith("phases/") else in_step)
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
    with pytest.raises(ValueError, match="Expected value >= 1 for dimension variable 'columns'"):
        load(folder / "init.jaxexport").call({"param": jnp.zeros((1, 3, 0))})


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("", (1, 1, 1)), ("", (1, 3, 511)), ("", (1, 1, 5003)), ("_matrix", (2, 129, 1)), ("_matrix", (3, 5, 131))],
)
def test_any_sizes(folder: pathlib.Path, kind: str, sizes: tuple[int, int, int]) -> None:
    functions = {path.stem: jax.jit(load(path).call) for path in folder.glob(f"*{kind}.jaxexport")}
    before = held(folder, np.full(sizes, 1e-3, np.float32), kind)
    grad = jnp.asarray(np.random.default_rng(0).normal(size=sizes), jnp.float32)

    def update(grad: jax.Array) -> dict[str, Any]:
        options = {**OPTIONS, "weight_decay": 0.0, "role": float(bool(kind))}
        inputs = {**before, **taken(folder, f"update{kind}", {**numbers_of(sizes, OPTIONS), **as_numbers(options)})}
        inputs["grad"] = grad
        share = f"share{kind}"
        terms = functions[share](taken(folder, share, inputs)) if share in functions else {}
        return functions[f"update{kind}"]({**inputs, **terms})

    after = update(grad)
    assert after["next.param"].shape == sizes
    assert np.all(np.isfinite(after["next.param"])) and np.all(after["next.param"] != before["param"])
    assert after["next.step"] == 1 and after["next.skipped"] == 0 and after["finite"]
    refused = update(grad.at[-1, -1, -1].set(jnp.nan))
    assert refused["next.step"] == 0 and refused["next.skipped"] == 1 and not refused["finite"]
    for name, value in before.items():
        if name not in ("skipped", "step"):
            np.testing.assert_array_equal(refused[f"next.{name}"], value)


def as_numbers(values: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


SHAPES = [(), (23,), (33, 31), (3, 7, 5)]
MATRICES = [(), (33, 31), (30, 2), (3, 7, 25), (4, 5, 3, 2)]


@pytest.fixture(scope="module")
def export_of(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of the export of a kind of cell, and its functions of a tensor."""

    @functools.cache
    def export_of(kind: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(kind)
        StableHloExporter().emit(frozen, compile_cell(cell_of(kind)), folder)
        calls = {path.stem: jax.jit(load(path).call) for path in folder.glob("*.jaxexport")}
        return {**calls, "folder": folder}

    return export_of


CELLS = ["tracks", "levels", "tiled", "adam", "lstm", "bare"]


def rollout(
    calls: Mapping[str, Any],
    cell: AbstractCell,
    params: Sequence[np.ndarray],
    history: Sequence[Sequence[np.ndarray]],
    options: Mapping[str, float],
) -> list[dict[str, Any]]:
    """What is carried of each tensor after the steps."""
    views = [view_of(cell, param.shape) for param in params]
    kinds = ["_matrix" if view.has_tiles else "" for view in views]
    arrays = [{"param": view.of(param)} for view, param in zip(views, params, strict=True)]
    carried = [{**each, **calls[f"init{kind}"](each)} for each, kind in zip(arrays, kinds, strict=True)]
    fixed = [told(calls["folder"], param.shape, options, kind) for param, kind in zip(params, kinds, strict=True)]
    for grads in history:
        given_ = [{**h, **f, "grad": v.of(grad)} for h, f, v, grad in zip(carried, fixed, views, grads, strict=True)]
        sums: dict[str, Any] = {}
        if "share" in calls:
            names = [f"share{kind}" for kind in kinds]
            terms = [calls[n](taken(calls["folder"], n, each)) for n, each in zip(names, given_, strict=True)]
            sums = {name: sum(each[name] for each in terms) for name in terms[0]}
        results = [calls[f"update{kind}"]({**each, **sums}) for each, kind in zip(given_, kinds, strict=True)]
        carried = [{name: each[f"next.{name}"] for name in h} for h, each in zip(carried, results, strict=True)]
    return carried


@pytest.mark.parametrize(
    "kind",
    [
        "tiled",
        "adam",
        "lstm",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tracks", "levels", "bare", "mnemosyne")),
    ],
)
@settings(max_examples=6, deadline=None)
@given(
    place=st.integers(0, 4),
    history=st.lists(st.sampled_from([0.0, 1.0, 1e12, np.nan]), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
    total_steps=st.sampled_from([0.0, 10.0]),
)
def test_update_takes_the_steps_of_the_cell(
    export_of: Any, kind: str, place: int, history: list[float], seed: int, total_steps: float
) -> None:
    shapes = MATRICES if kind == "tiled" else SHAPES
    shape = shapes[place % len(shapes)]
    random = np.random.default_rng(seed)
    param = np.asarray(random.normal(size=shape), np.float32)
    grads = [np.asarray(size * random.normal(size=shape), np.float32) for size in history]
    options = {"lr": 1.0, "total_steps": total_steps, "weight_decay": 0.1}
    history_of_one = [[grad] for grad in grads]
    carried = rollout(export_of(kind), cell_of(kind), [param], history_of_one, options)
    assert_takes_the_steps(cell_of(kind), [param], history_of_one, options, carried)


def test_a_transposed_matrix_gets_the_transposed_update(export_of: Any) -> None:
    random = np.random.default_rng(1)
    calls, sizes = export_of("tiled"), (2, 33, 14)
    param, *grads = (random.normal(size=sizes).astype(np.float32) for _ in range(4))

    def steps(turn: Any) -> np.ndarray:
        values = held(calls["folder"], turn(param), "_matrix")
        for grad in grads:
            inputs = {**values, **told(calls["folder"], sizes, OPTIONS, "_matrix"), "grad": turn(grad)}
            after = calls["update_matrix"](inputs)
            values = {name: after[f"next.{name}"] for name in values}
        return np.asarray(values["param"])

    straight, turned = steps(lambda x: x), steps(lambda x: np.swapaxes(x, 1, 2))
    np.testing.assert_allclose(np.swapaxes(turned, 1, 2), straight, rtol=1e-4, atol=1e-5)


def network(seed: int, steps: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Tensors and a history of gradients, those of one tensor not finite in the second step."""
    random = np.random.default_rng(seed)
    drawn = [[np.asarray(random.normal(size=shape), np.float32) for shape in TOGETHER] for _ in range(1 + steps)]
    params, *history = drawn
    history[1][2][3, 1] = np.inf
    return params, history


def test_tensors_that_tell_each_other_something_take_the_steps_of_the_cell(export_of: Any) -> None:
    cell = cell_of("levels")
    params, history = network(4, steps=6)
    carried = rollout(export_of("levels"), cell, params, history, OPTIONS)
    assert_takes_the_steps(cell, params, history, OPTIONS, carried)
    assert {str(each["memory.pair"].dtype) for each in carried} == {"bfloat16"}


def test_a_sum_that_is_not_finite_refuses_the_step(export_of: Any) -> None:
    calls = export_of("levels")
    (param, *_), (grads, _) = network(1, steps=2)
    (carried,) = rollout(calls, cell_of("levels"), [param], [grads[:1]], OPTIONS)
    grad = view_of(cell_of("levels"), param.shape).of(grads[0])
    inputs = {**carried, **told(calls["folder"], param.shape, OPTIONS), "grad": grad}
    sums = calls["share"](taken(calls["folder"], "share", inputs))
    assert calls["update"]({**inputs, **sums})["finite"]
    for name, broken in (("network.clock", jnp.nan), ("network.levels", [1.0, -jnp.inf])):
        after = calls["update"]({**inputs, **sums, name: jnp.asarray(broken, jnp.float32)})
        assert not after["finite"] and after["next.step"] == carried["step"] and after["next.skipped"] == 1
        for key in carried.keys() - {"skipped"}:
            np.testing.assert_array_equal(after[f"next.{key}"], carried[key])


def test_the_manifest_says_what_a_function_takes_and_how_many_chunks_there_are(export_of: Any) -> None:
    functions = {kind: json.loads((export_of(kind)["folder"] / "manifest.json").read_text()) for kind in CELLS}
    inputs = {
        (kind, path): {entry["name"]: (entry["shape"], entry["dtype"]) for entry in function["inputs"]}
        for kind, manifest in functions.items()
        for path, function in manifest["programs"].items()
    }
    memory = {"memory.narrow", "memory.tokens", "memory.energy"}
    assert inputs["levels", "share"].keys() == {"grad", "step", "param", "matrix", "state.loudest"} | memory
    assert ("adam", "share") not in inputs and "role" not in inputs["adam", "update"]
    levels = inputs["levels", "update"]
    assert levels["memory.tokens"] == (["batch*rows*floordiv(columns + 7, 8)", 2, 3], "float32")
    assert levels["memory.pair"] == (["batch", "rows", "columns", 2], "bfloat16")
    always = {"param", "grad", "step", "skipped", "lr", "weight_decay"}
    assert inputs["tiled", "update"].keys() == always | {"role", "memory.fast", "memory.slow", "memory.square"}
    assert inputs["tiled", "update_matrix"].keys() == always | {"memory.fast", "memory.slow"}
    assert levels["role"] == levels["network.clock"] == ([], "float32")


PHASES_OF = {
    "adam": {"measure", "recall", "update"},
    "bare": {"measure", "update"},
    "levels": {"measure", "encode", "share", "recall", "update"},
    "tiled": {"measure", "recall", "update", "orthogonalise", "update_tiles"},
}


def test_phases_that_no_step_needs_are_not_written(export_of: Any) -> None:
    for kind, phases in PHASES_OF.items():
        folder = export_of(kind)["folder"]
        assert {path.stem for path in (folder / "phases").iterdir()} == phases
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all(
            (f"`{phase}`" in readme) == (phase in phases) for phase in ("encode", "share", "recall", "orthogonalise")
        )


def test_what_padding_gives_does_not_leak(export_of: Any) -> None:
    """Of a short tensor, most sampled chunks are none; Tracks divides by the coordinates in each."""
    calls = export_of("tracks")
    param = np.ones((1, 1, 3), np.float32)
    after = calls["update"](
        {**held(calls["folder"], param), **told(calls["folder"], (3,), OPTIONS), "grad": jnp.ones((1, 1, 3))}
    )
    assert all(np.all(np.isfinite(value)) for name, value in after.items() if name != "next.state.lowest")


@pytest.mark.parametrize("kind", [pytest.param("mnemosyne", marks=pytest.mark.slow), "levels"])
def test_the_example_in_the_readme_runs_alone(
    frozen: FrozenCell, tmp_path: pathlib.Path, export_of: Any, kind: str
) -> None:
    if kind == "mnemosyne":
        # Random weights are no optimizer.
        StableHloExporter().emit(frozen, compile_cell(frozen.config.build()), tmp_path)
    folder = tmp_path if kind == "mnemosyne" else export_of(kind)["folder"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert "share.jaxexport" in example
    done = subprocess.run(
        [sys.executable, "-IB", "-c", example], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split("->"))
    assert after < before


def test_the_readme_says_what_each_input_is_and_what_need_not_be_kept(export_of: Any) -> None:
    text = (export_of("levels")["folder"] / "README.md").read_text(encoding="utf-8")
    plain = " ".join(text.split())
    for sentence in (
        "| `memory.pair` | batch × rows × columns × 2 | memory per coordinate, in bfloat16 |",
        "| `memory.tokens` | chunks × 2 × 3 | memory per chunk |",
        "the two counters, which are int32, and `memory.narrow` and `memory.pair`.",
        "chunks is batch · rows · (columns / 8, rounded up), and a chunk is 8 coordinates.",
        "Tensors of the roles vector and embedding have `memory.own`.",
        "`share.jaxexport` takes `param`, `grad`, `memory.narrow`, ",
        "Rows of `share` and `recall` are tensors. Rows of the others are chunks of 8 coordinates.",
    ):
        assert sentence in plain
    other = (export_of("tracks")["folder"] / "README.md").read_text(encoding="utf-8")
    assert not re.search("share|role|bfloat16|chunks is|_matrix|tile", other)


def test_the_readme_names_every_input_phase_and_version(folder: pathlib.Path, paths: list[str]) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [entry["name"] for entry in manifest["programs"]["update"]["inputs"]]
    for name in (*names, *(path.removeprefix("phases/") for path in paths if path.startswith("phases/"))):
        assert f"`{name}`" in readme
    assert f"jax {jax.__version__}" in readme and f"StableHLO {manifest['stablehlo']}" in readme


def test_the_same_cell_gives_the_same_bytes_wherever_it_is_exported(
    folder: pathlib.Path, paths: list[str], frozen: FrozenCell, tmp_path: pathlib.Path
) -> None:
    # Other code has traced the same operations before, from other lines.
    jax.jit(lambda x: jnp.where(jnp.tanh(x) > 0, jnp.sum(x), jnp.log1p(x)))(jnp.ones(3))
    before = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    StableHloExporter().emit(frozen, compile_cell(frozen.cell()), tmp_path)
    assert jax.config.jax_traceback_in_locations_limit == before  # pyright: ignore[reportAttributeAccessIssue]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 2 + 2 * len(paths)
    for path in files:
        content = path.read_bytes()
        assert (tmp_path / path.relative_to(folder)).read_bytes() == content
        # Neither this checkout, nor where Python and its packages are.
        for place in (pathlib.Path(__file__).parents[2], pathlib.Path(jax.__file__).parents[1], pathlib.Path.home()):
            assert len(str(place)) < 2 or str(place).encode() not in content
        assert b".py" not in content or path.suffix == ".md"


def test_the_text_holds_every_function_and_no_walls_of_numbers(frozen: FrozenCell, paths: list[str]) -> None:
    text = StableHloExporter().text(frozen, compile_cell(frozen.cell()))
    assert re.findall(r"module @(\w+)", text) == [f"jit_{path.removeprefix('phases/')}" for path in paths]
    assert "stablehlo.tanh" in text and "loc(" not in text
    assert max(map(len, text.splitlines())) < 4000


def test_contractions_leave_no_precision_to_the_backend(frozen: FrozenCell) -> None:
    text = StableHloExporter().text(frozen, compile_cell(frozen.cell()))
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert dots and all("precision = [HIGHEST, HIGHEST]" in line for line in dots)


def copied(folder: pathlib.Path, target: pathlib.Path, **changes: Any) -> pathlib.Path:
    """The export with other entries in its manifest."""
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


def test_an_export_that_is_incomplete_or_damaged_is_refused_in_a_sentence(
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
