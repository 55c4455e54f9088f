"""The optax export works where parameters lie on several devices, and leaves them there."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from mnemo_compile.exporters.optax import OptaxExporter
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from tests.cells import cell_of

PROGRAM = r"""
import json, os, re, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import small_cell

CASES = {
    "rows": ((8,), {"rows.embedding": ((256, 128), P("x"))}),
    "columns": ((8,), {"columns.embedding": ((64, 512), P(None, "x"))}),
    "both": ((4, 2), {"both.embedding": ((128, 256), P("x", "y")), "expert": ((8, 64, 64), P(("x", "y")))}),
    "axes": ((8,), {"last.embedding": ((3, 3, 32, 128), P(None, None, None, "x")), "third.embedding": ((3, 3, 64, 64), P(None, None, "x"))}),
    "small": ((8,), {"bias": ((64,), P("x")), "scalar": ((), P())}),
    "replicated": ((8,), {"w": ((300, 128), P()), "b": ((300,), P())}),
    "unaligned": ((8,), {"w": ((1000, 33), P("x"))}),
    "tiles": ((8,), {"dense.kernel": ((384, 40), P("x")), "qkv.weight": ((288, 96), P("x"))}),
    "tiles of others": ((8,), {"experts.w1": ((8, 40, 36), P("x")), "conv.weight": ((96, 12, 3, 3), P("x"))}),
    "cut tiles": ((8,), {"cut": ((328, 40), P("x")), "across": ((60, 192), P(None, "x")), "conv.kernel": ((3, 3, 40, 32), P(None, None, None, "x"))}),
    "levels": ((8,), {"rows": ((256, 128), P("x")), "bias": ((64,), P("x"))}),
    "levels of others": ((8,), {"long": ((16384,), P("x")), "w": ((300, 128), P())}),
    "levels of columns": ((8,), {"wide": ((8, 2048), P(None, "x"))}),
}
sizes, specs = CASES[sys.argv[1]]
mesh = Mesh(np.array(jax.devices()).reshape(sizes), ("x", "y")[: len(sizes)])
random = np.random.default_rng(0)
draw = lambda: {name: random.normal(size=shape).astype(np.float32) for name, (shape, _) in specs.items()}
place = lambda tree: {name: jax.device_put(tree[name], NamedSharding(mesh, specs[name][1])) for name in tree}
params, history = draw(), [draw() for _ in range(3)]
transformation = small_cell.mnemosyne(total_steps=5, block_size=8192)

def advance(params, state, grads):
    updates, state = transformation.update(grads, state, params)
    return optax.apply_updates(params, updates), state

here, there = params, place(params)
here_state, there_state = transformation.init(here), transformation.init(there)
leaves = lambda state: {(key, name): slot[name] for key, slot in state.memory.items() for name in specs if slot[name].size}
before = {key: leaf.sharding for key, leaf in leaves(there_state).items()}
alone, shared = jax.jit(advance), jax.jit(advance, donate_argnums=(0, 1))
text = shared.lower(there, there_state, place(history[0])).compile().as_text()
for grads in history:
    here, here_state = alone(here, here_state, grads)
    there, there_state = shared(there, there_state, place(grads))
gathered = [
    int(np.prod([int(size) for size in sizes.split(",") if size]))
    for sizes in re.findall(r"= \(?\w+\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
]
wide = lambda x: np.asarray(x, np.float64)
error = lambda x, y, start: float(np.linalg.norm(wide(x) - wide(y)) / np.linalg.norm(wide(y) - wide(start)))
kept_here, kept_there = leaves(here_state), leaves(there_state)
own = {key: specs[key[1]][1] for key, leaf in kept_there.items() if leaf.shape[: len(specs[key[1]][0])] == specs[key[1]][0]}
kept = lambda tree: all(tree[name].sharding.is_equivalent_to(NamedSharding(mesh, spec), len(shape)) for name, (shape, spec) in specs.items())
print(json.dumps({
    "update": max(error(there[name], here[name], params[name]) for name in specs),
    "memory": max(error(kept_there[key], kept_here[key], 0) for key in kept_here),
    "kept": kept(there) and all(kept_there[key].sharding.is_equivalent_to(NamedSharding(mesh, spec), kept_there[key].ndim) for key, spec in own.items()),
    "of_chunks": {
        " ".join(key): [list(before[key].spec), leaf.sharding.is_equivalent_to(before[key], leaf.ndim)]
        for key, leaf in kept_there.items() if key not in own
    },
    "largest_gathered": max(gathered, default=0),
    "used": text.count("num_partitions=8"),
}))
"""  # noqa: E501


SELDOM = ("columns", "small", "both", "axes", "replicated", "unaligned")


@pytest.mark.parametrize(
    "case",
    ["rows", *(pytest.param(case, marks=pytest.mark.slow) for case in SELDOM)],
)
def test_shared_parameters_step_as_whole_ones_and_stay_where_they_are(optax_package: Any, case: str) -> None:
    result = run(pathlib.Path(optax_package.__file__).parents[1], case)
    assert result["used"] and result["kept"]
    assert result["update"] <= 1e-5 and result["memory"] <= 1e-5
    # Nothing moves between devices but small tensors and sums.
    assert result["largest_gathered"] <= 2048


@pytest.mark.parametrize(
    "case", ["tiles", *(pytest.param(case, marks=pytest.mark.slow) for case in ("tiles of others", "cut tiles"))]
)
def test_tiles_of_shared_matrices_step_as_whole_ones(package_of: Any, case: str) -> None:
    """Where shards of the first axis fall between tiles, nothing is gathered."""
    result = run(pathlib.Path(package_of("tiled").__file__).parents[1], case)
    assert result["used"] and result["kept"]
    # What is in bfloat16 may be rounded the other way.
    assert result["update"] <= 1e-4 and result["memory"] <= 1e-3
    if case != "cut tiles":
        assert result["largest_gathered"] <= 2048


def run(folder: pathlib.Path, case: str) -> dict[str, Any]:
    """What the program prints of a case, with the package in this folder."""
    command = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{PROGRAM}", case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def levels(frozen: FrozenCell, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a package whose chunks keep something, too."""
    folder = tmp_path_factory.mktemp("levels")
    OptaxExporter().emit(frozen, compile_cell(cell_of("levels")), folder)
    return folder


@pytest.mark.parametrize(
    ("case", "axes"),
    [
        ("levels", {"rows": ["x"], "bias": ["x"]}),
        pytest.param("levels of others", {"long": ["x"], "w": []}, marks=pytest.mark.slow),
    ],
)
def test_what_chunks_keep_lies_with_their_coordinates(
    levels: pathlib.Path, case: str, axes: dict[str, list[str]]
) -> None:
    result = run(levels, case)
    assert result["used"] and result["kept"] and result["largest_gathered"] <= 2048
    # What is in bfloat16 may be rounded the other way.
    assert result["update"] <= 1e-4 and result["memory"] <= 1e-3
    assert result["of_chunks"] == {
        f"{slot} {name}": [shared, True] for slot in ("energy", "tokens") for name, shared in axes.items()
    }


@pytest.mark.slow
def test_what_chunks_of_columns_keep_steps_as_whole(levels: pathlib.Path) -> None:
    """One axis of chunks cannot be shared as columns are, so that this much is gathered, and no more."""
    result = run(levels, "levels of columns")
    assert result["used"] and result["kept"] and result["largest_gathered"] <= 8 * 2048 // 8 * 6
    assert result["update"] <= 1e-4 and result["memory"] <= 1e-3
