"""The README of a stablehlo artifact."""

from ...program import CompiledCell
from ..one_tensor._shapes import network, share_inputs
from ..one_tensor._readme import input_table, listed, notes, numbers, paragraph, phases_note
from ._manifest import StableHloManifest

_TEXT = """\
# {name} {version} for StableHLO

A learned optimizer, exported by mnemo-compile with jax {jax} for {platforms}. Digest: `{digest}`

{what}

{table}

{notes}

```python
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import export


def load(path):
    return jax.jit(export.deserialize(bytearray(pathlib.Path(path).read_bytes())).call)


{example}```

{phases}

{files}

{guarantee}
"""

_ALONE = """\
init, update = load("init.jaxexport"), load("update.jaxexport")
param = jnp.asarray(np.random.normal(size=1000), jnp.float32)
fixed = {numbers}
fixed = {{name: jnp.float32(value) for name, value in fixed.items()}}
held = {{"param": param, **init({{"param": param}})}}
for _ in range(100):
    grad = held["param"]  # of half the square
    results = update({{**held, **fixed, "grad": grad}})
    held = {{name: results["next." + name] for name in held}}
print(jnp.linalg.norm(param), "->", jnp.linalg.norm(held["param"]))
"""

_TOGETHER = """\
init, share, update = map(load, ("init.jaxexport", "share.jaxexport", "update.jaxexport"))
shared = [{shared}]
params = [jnp.asarray(np.random.normal(size=size), jnp.float32) for size in (1000, 30)]
fixed = {numbers}
fixed = {{name: jnp.float32(value) for name, value in fixed.items()}}
held = [{{"param": param, **init({{"param": param}})}} for param in params]
for _ in range(100):
    given = [{{**each, **fixed, "grad": each["param"]}} for each in held]  # of half the square
    terms = [share({{name: each[name] for name in shared}}) for each in given]
    sums = {{name: sum(each[name] for each in terms) for name in terms[0]}}
    results = [update({{**each, **sums}}) for each in given]
    held = [{{name: each["next." + name] for name in held[0]}} for each in results]
after = [each["param"] for each in held]
print(jnp.linalg.norm(jnp.concatenate(params)), "->", jnp.linalg.norm(jnp.concatenate(after)))
"""


def readme(compiled: CompiledCell, manifest: StableHloManifest) -> str:
    """What the files are and how they are used, given the content of the manifest."""
    narrow = [f"memory.{name}" for name, slot in compiled.memory_slots.items() if slot.dtype == "bfloat16"]
    but = f"the two counters, which are int32, and {listed(narrow)}" if narrow else "the two counters, which are int32"
    shared = share_inputs(compiled) if network(compiled) else {}
    return _TEXT.format(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        jax=manifest.jax,
        platforms=", ".join(manifest.platforms),
        what=paragraph(
            "`update.jaxexport` takes one step of one parameter tensor of any number of coordinates N ≥ 1, in row-"
            f"major order. It is called with a dictionary and gives one. Everything is float32 but {but}."
        ),
        table=input_table(compiled, has_bfloat16=True),
        notes="\n\n".join(notes(compiled, ".jaxexport")),
        example=(_TOGETHER if shared else _ALONE).format(
            numbers=numbers(compiled), shared=", ".join(f'"{name}"' for name in shared)
        ),
        phases=phases_note(compiled, "functions"),
        files=paragraph(
            "A `.jaxexport` is a `jax.export.Exported`, serialized. The `.mlirbc` beside it is the same program for "
            f"XLA without JAX, a portable artifact of StableHLO {manifest.stablehlo} with dynamic sizes. The first "
            "argument of its `main` is an int32, the place of the platform in `platforms`; the others are the inputs. "
            "`manifest.json` lists both, in order, and the outputs."
        ),
        guarantee=paragraph(
            "JAX promises to run these files in versions built up to six months after those that made them (jax "
            f"{manifest.jax}), and up to three weeks before: {manifest.runs_with.source}. Past that, export the cell "
            "again; the cell itself does not age."
        ),
    )
