"""The README of an onnx artifact."""

from ...frozen import FrozenCell
from ...program import CompiledCell
from ..one_tensor._shapes import network
from ..one_tensor._readme import input_table, listed, notes, numbers, paragraph, phases_note
from ._builder import IR_VERSION, OPSET

_TEXT = """\
# {name} {version} for ONNX

A learned optimizer, exported by mnemo-compile: opset {opset}, IR version {ir}, for ONNX Runtime 1.14 or newer and
whatever else runs that opset. Digest: `{digest}`

`update.onnx` takes one step of one parameter tensor of any number of coordinates N ≥ 1, in row-major order.
Everything is float32 but the two counters, which are int64.

{table}

{notes}

```python
import numpy as np
import onnxruntime


def run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    given = {{value.name: inputs[value.name] for value in session.get_inputs()}}
    return dict(zip(names, session.run(names, given)))


{example}```

The coordinates are worked on block by block: beside its inputs and outputs a step needs the memory of one more array of
N numbers and that of a block. ONNX Runtime keeps to that with `enable_mem_pattern = False` in the session's options.
Its releases up to 1.17, and maybe later ones, make NaN of the square root of infinity, and in roots and logarithms take
numbers below 1.2e-38 for zero and for 1.2e-38.

{phases}
"""

_ALONE = """\
init = onnxruntime.InferenceSession("init.onnx")
update = onnxruntime.InferenceSession("update.onnx")
param = np.random.normal(size=1000).astype(np.float32)
fixed = {numbers}
fixed = {{name: np.array(value, np.float32) for name, value in fixed.items()}}
held = {{"param": param, **run(init, {{"param": param}})}}
for _ in range(100):
    grad = held["param"]  # of half the square
    results = run(update, {{**held, **fixed, "grad": grad}})
    held = {{name: np.asarray(results["next." + name]) for name in held}}
print(np.linalg.norm(param), "->", np.linalg.norm(held["param"]))
"""

_TOGETHER = """\
init = onnxruntime.InferenceSession("init.onnx")
share = onnxruntime.InferenceSession("share.onnx")
update = onnxruntime.InferenceSession("update.onnx")
params = [np.random.normal(size=size).astype(np.float32) for size in (1000, 30)]
fixed = {numbers}
fixed = {{name: np.array(value, np.float32) for name, value in fixed.items()}}
held = [{{"param": param, **run(init, {{"param": param}})}} for param in params]
for _ in range(100):
    given = [{{**each, **fixed, "grad": each["param"]}} for each in held]  # of half the square
    terms = [run(share, each) for each in given]
    sums = {{name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}}
    results = [run(update, {{**each, **sums}}) for each in given]
    held = [{{name: np.asarray(each["next." + name]) for name in held[0]}} for each in results]
after = [each["param"] for each in held]
print(np.linalg.norm(np.concatenate(params)), "->", np.linalg.norm(np.concatenate(after)))
"""


def readme(frozen: FrozenCell, compiled: CompiledCell) -> str:
    """What the files are and how they are used."""
    texts = notes(compiled, ".onnx")
    narrow = [f"memory.{name}" for name, slot in compiled.memory_slots.items() if slot.dtype == "bfloat16"]
    if narrow:
        texts.append(
            paragraph(
                f"All numbers of {listed(narrow)} are numbers that bfloat16 has. Who keeps them may keep just the "
                "upper two bytes of each."
            )
        )
    return _TEXT.format(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        opset=OPSET,
        ir=IR_VERSION,
        table=input_table(compiled, has_bfloat16=False),
        notes="\n\n".join(texts),
        example=(_TOGETHER if network(compiled) else _ALONE).format(numbers=numbers(compiled)),
        phases=phases_note(compiled, "models"),
    )
