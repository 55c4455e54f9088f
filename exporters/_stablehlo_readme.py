"""The README of a stablehlo artifact."""

import textwrap
from collections.abc import Iterable

from ..program import CompiledCell
from ._stablehlo_manifest import Array, StableHloManifest

_TEXT = """\
# {name} {version} for StableHLO

A learned optimizer, exported by mnemo-compile with jax {jax} for {platforms}. Digest: `{digest}`

`update.jaxexport` takes one step of one parameter tensor of any number of coordinates N ≥ 1, in row-major order. It is
called with a dictionary and gives one. Everything is float32 but the two counters, which are int32.

| input | shape | what it is |
|---|---|---|
| `param`, `grad` | N | the tensor and its gradient |
{rows}| `matrix` | scalar | 1 for a tensor of two axes and more, else 0 |
| `aspect` | scalar | longest axis over the product of the others; 1 for fewer than two axes |
| `total_steps` | scalar | how many steps will be taken, 0 if that is not known |
| `lr` | scalar | multiplies the step; 1 |
| `weight_decay` | scalar | decoupled; 0 |

{outputs}

```python
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import export


def load(path):
    return jax.jit(export.deserialize(bytearray(pathlib.Path(path).read_bytes())).call)


init, update = load("init.jaxexport"), load("update.jaxexport")
param = jnp.asarray(np.random.normal(size=1000), jnp.float32)
fixed = {{"matrix": 0, "aspect": 1, "total_steps": 100, "lr": 1, "weight_decay": 0}}
fixed = {{name: jnp.float32(value) for name, value in fixed.items()}}
held = {{"param": param, **init({{"param": param}})}}
for _ in range(100):
    grad = held["param"]  # of half the square
    results = update({{**held, **fixed, "grad": grad}})
    held = {{name: results["next." + name] for name in held}}
print(jnp.linalg.norm(param), "->", jnp.linalg.norm(held["param"]))
```

{phases}

{files}

{guarantee}
"""

_ABOUT = {
    "memory": "the memory of each coordinate",
    "state": "the tensor's state",
    "step": "steps taken",
    "skipped": "steps refused because a gradient was not finite",
}


def readme(compiled: CompiledCell, manifest: StableHloManifest) -> str:
    """What the files are and how they are used, given the content of the manifest."""
    carried = manifest.programs["init"].outputs
    summed = [name for name in compiled.programs if name not in ("recall", "update")]
    rows = "rows of `recall` are tensors, of the others" if "recall" in compiled.programs else "rows are"
    return _TEXT.format(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        jax=manifest.jax,
        platforms=", ".join(manifest.platforms),
        rows="".join(map(_row, carried)),
        outputs=_paragraph(
            f"`init.jaxexport` makes {_listed(array.name for array in carried)} of a `param`, as they are before the "
            "first step. `update.jaxexport` gives for each of them, and for `param`, an output `next.…` of the same "
            "shape, the input of the next step. `finite` is a scalar output: false where the step was refused and "
            "nothing changed. Refuse the step of the other tensors too, to do what the other targets do."
        ),
        phases=_paragraph(
            f"`phases/` holds {_listed(compiled.programs)} as functions of their own, for who splits a tensor among "
            f"devices: {rows} chunks of {compiled.chunk_length} coordinates; what {_listed(summed)} "
            f"{'give' if len(summed) > 1 else 'gives'} is summed over a tensor's chunks. An output `next.…` is the "
            "next value of the input of that name."
        ),
        files=_paragraph(
            "A `.jaxexport` is a `jax.export.Exported`, serialized. The `.mlirbc` beside it is the same program for "
            f"XLA without JAX, a portable artifact of StableHLO {manifest.stablehlo} with dynamic sizes. The first "
            "argument of its `main` is an int32, the place of the platform in `platforms`; the others are the inputs. "
            "`manifest.json` lists both, in order, and the outputs."
        ),
        guarantee=_paragraph(
            "JAX promises to run these files in versions built up to six months after those that made them (jax "
            f"{manifest.jax}), and up to three weeks before: {manifest.runs_with.source}. Past that, export the cell "
            "again; the cell itself does not age."
        ),
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _row(array: Array) -> str:
    shape, about = " × ".join(map(str, array.shape)), _ABOUT[array.name.partition(".")[0]]
    return f"| `{array.name}` | {shape or 'scalar'} | {about} |\n"


def _listed(names: Iterable[str]) -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} and {last}" if most else last
