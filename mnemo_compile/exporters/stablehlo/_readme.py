"""The README of a stablehlo export."""

from ...program import CompiledCell
from ..one_tensor import input_table, joined, notes, numbers, phases_note, signatures
from ._manifest import StableHloManifest

_TEXT = """\
# {name} {version} for StableHLO

A learned optimizer, exported by mnemo-compile with jax {jax} for {platforms}.
Digest: `{digest}`

`update.jaxexport` takes one step of one parameter tensor, given as a batch of matrices of any sizes ≥ 1.
It takes a dictionary and returns one.
Everything is float32 except {others}.

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

A `.jaxexport` is a `jax.export.Exported`, serialized.
The `.mlirbc` beside it is the same program for XLA without JAX: a portable artifact of StableHLO {stablehlo}.
It has dynamic sizes.
The first argument of its `main` is an int32, the index of the platform in `platforms`; the others are the inputs.
`manifest.json` lists both, in order, and the outputs.

JAX promises to run these files in versions built up to six months after those that made them (jax {jax}).
It promises the same for versions built up to three weeks before: {source}.
After that, export the cell again; the cell itself does not expire.
"""

_ALONE = """\
init, update = load("init.jaxexport"), load("update.jaxexport")
param = jnp.asarray(np.random.normal(size=(1, 1, 1000)), jnp.float32)
fixed = {numbers}
fixed = {{name: jnp.float32(value) for name, value in fixed.items()}}
values = {{"param": param, **init({{"param": param}})}}
for _ in range(100):
    grad = values["param"]  # the gradient of half the square
    results = update({{**values, **fixed, "grad": grad}})
    values = {{name: results["next." + name] for name in values}}
print(np.linalg.norm(param), "->", np.linalg.norm(values["param"]))
"""

_TOGETHER = """\
init, share, update = map(load, ("init.jaxexport", "share.jaxexport", "update.jaxexport"))
names = [{share_inputs}]
params = [jnp.asarray(np.random.normal(size=(1, 1, size)), jnp.float32) for size in (1000, 30)]
fixed = {numbers}
fixed = {{name: jnp.float32(value) for name, value in fixed.items()}}
values = [{{"param": param, **init({{"param": param}})}} for param in params]
for _ in range(100):
    inputs = [{{**each, **fixed, "grad": each["param"]}} for each in values]  # the gradient of half the square
    terms = [share({{name: each[name] for name in names}}) for each in inputs]
    sums = {{name: sum(each[name] for each in terms) for name in terms[0]}}
    results = [update({{**each, **sums}}) for each in inputs]
    values = [{{name: each["next." + name] for name in values[0]}} for each in results]
after = [each["param"] for each in values]
print(sum(map(np.linalg.norm, params)), "->", sum(map(np.linalg.norm, after)))
"""


def readme(compiled: CompiledCell, manifest: StableHloManifest) -> str:
    """A description of the files and how to use them, from the manifest."""
    narrow = [f"memory.{slot.name}" for slot in compiled.memory_slots if slot.dtype == "bfloat16"]
    others = (
        f"the two counters, which are int32, and {joined(narrow)}" if narrow else "the two counters, which are int32"
    )
    signature = signatures(compiled)[0]
    names = signature.share_inputs if signature.network else {}
    return _TEXT.format(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        jax=manifest.jax,
        platforms=", ".join(manifest.platforms),
        others=others,
        table=input_table(compiled, has_bfloat16=True),
        notes="\n\n".join(notes(compiled, ".jaxexport")),
        example=(_TOGETHER if names else _ALONE).format(
            numbers=numbers(compiled), share_inputs=", ".join(f'"{name}"' for name in names)
        ),
        phases=phases_note(compiled, "functions"),
        stablehlo=manifest.stablehlo,
        source=manifest.runs_with.source,
    )
