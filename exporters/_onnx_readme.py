"""The README of an onnx artifact."""

import textwrap
from collections.abc import Iterable

from ..artifact import FrozenCell
from ..program import CompiledCell
from ._onnx_builder import IR_VERSION, OPSET
from ._onnx_graphs import carried

_TEXT = """\
# {name} {version} for ONNX

A learned optimizer, exported by mnemo-compile: opset {opset}, IR version {ir}, for ONNX Runtime 1.14 or newer and
whatever else runs that opset. Digest: `{digest}`

`update.onnx` takes one step of one parameter tensor of any number of coordinates N ≥ 1, in row-major order.
Everything is float32 but the two counters, which are int64.

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
import numpy as np
import onnxruntime


def run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


init = onnxruntime.InferenceSession("init.onnx")
update = onnxruntime.InferenceSession("update.onnx")
param = np.random.normal(size=1000).astype(np.float32)
fixed = {{"matrix": 0, "aspect": 1, "total_steps": 100, "lr": 1, "weight_decay": 0}}
fixed = {{name: np.array(value, np.float32) for name, value in fixed.items()}}
held = {{"param": param, **run(init, {{"param": param}})}}
for _ in range(100):
    grad = held["param"]  # of half the square
    results = run(update, {{**held, **fixed, "grad": grad}})
    held = {{name: np.asarray(results["next." + name]) for name in held}}
print(np.linalg.norm(param), "->", np.linalg.norm(held["param"]))
```

The coordinates are worked on block by block: beside its inputs and outputs a step needs the memory of one more array of
N numbers and that of a block. ONNX Runtime keeps to that with `enable_mem_pattern = False` in the session's options.
Its releases up to 1.17, and maybe later ones, make NaN of the square root of infinity, and in roots and logarithms take
numbers below 1.2e-38 for zero and for 1.2e-38.

{phases}
"""

_ABOUT = {
    "memory": "the memory of each coordinate",
    "state": "the tensor's state",
    "step": "steps taken",
    "skipped": "steps refused because a gradient was not finite",
}


def readme(frozen: FrozenCell, compiled: CompiledCell) -> str:
    """What the files are and how they are used."""
    shapes = {name: shape for name, (shape, _) in carried(compiled).items()}
    summed = [name for name in compiled.programs if name not in ("recall", "update")]
    rows = "rows of `recall` are tensors, of the others" if "recall" in compiled.programs else "rows are"
    return _TEXT.format(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        opset=OPSET,
        ir=IR_VERSION,
        rows="".join(_row(name, shape) for name, shape in shapes.items()),
        outputs=_paragraph(
            f"`init.onnx` makes {_listed(shapes)} of a `param`, as they are before the first step. `update.onnx` gives "
            "for each of them, and for `param`, an output `next.…` of the same shape, the input of the next step. "
            "`finite` is a scalar output: false where the step was refused and nothing changed. Refuse the step of the "
            "other tensors too, to do what the other targets do."
        ),
        phases=_paragraph(
            f"`phases/` holds {_listed(compiled.programs)} as models of their own, for who splits a tensor among "
            f"devices: {rows} chunks of {compiled.chunk_length} coordinates; what {_listed(summed)} "
            f"{'give' if len(summed) > 1 else 'gives'} is summed over a tensor's chunks. An output `next.…` is the "
            "next value of the input of that name."
        ),
    )


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _row(name: str, shape: tuple[int | str, ...]) -> str:
    return f"| `{name}` | {' × '.join(map(str, shape)) or 'scalar'} | {_ABOUT[name.partition('.')[0]]} |\n"


def _listed(names: Iterable[str]) -> str:
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} and {last}" if most else last
