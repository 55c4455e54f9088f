"""The README of an onnx export."""

from ...frozen import FrozenCell
from ...program import CompiledCell
from ..one_tensor import input_table, joined, notes, numbers, phases_note, signatures
from ._builder import IR_VERSION, OPSET

_TEXT = """\
# {name} {version} for ONNX

A learned optimizer, exported by mnemo-compile.
It has opset {opset} and IR version {ir}, for ONNX Runtime 1.14 or newer and any other runtime with that opset.
Digest: `{digest}`

`update.onnx` takes one step of one parameter tensor, given as a batch of matrices of any sizes ≥ 1.
Everything is float32 except the two counters, which are int64.

{table}

{notes}

```python
import numpy as np
import onnxruntime


def run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    feed = {{value.name: inputs[value.name] for value in session.get_inputs()}}
    return dict(zip(names, session.run(names, feed)))


{example}```

A step works on the coordinates block by block{or_tile}.
In addition to its inputs and outputs it needs memory for one more array as large as the tensor and for a block.
ONNX Runtime needs no more than that with `enable_mem_pattern = False` in the session's options.
In its releases up to 1.17, and maybe later ones, the square root of infinity is NaN.
Their roots treat numbers below 1.2e-38 as zero, and their logarithms treat them as 1.2e-38.

{phases}
"""

_ALONE = """\
init = onnxruntime.InferenceSession("init.onnx")
update = onnxruntime.InferenceSession("update.onnx")
param = np.random.normal(size=(1, 1, 1000)).astype(np.float32)
fixed = {numbers}
fixed = {{name: np.array(value, np.float32) for name, value in fixed.items()}}
values = {{"param": param, **run(init, {{"param": param}})}}
for _ in range(100):
    grad = values["param"]  # the gradient of half the square
    results = run(update, {{**values, **fixed, "grad": grad}})
    values = {{name: np.asarray(results["next." + name]) for name in values}}
print(np.linalg.norm(param), "->", np.linalg.norm(values["param"]))
"""

_TOGETHER = """\
init = onnxruntime.InferenceSession("init.onnx")
share = onnxruntime.InferenceSession("share.onnx")
update = onnxruntime.InferenceSession("update.onnx")
params = [np.random.normal(size=(1, 1, size)).astype(np.float32) for size in (1000, 30)]
fixed = {numbers}
fixed = {{name: np.array(value, np.float32) for name, value in fixed.items()}}
values = [{{"param": param, **run(init, {{"param": param}})}} for param in params]
for _ in range(100):
    inputs = [{{**each, **fixed, "grad": each["param"]}} for each in values]  # the gradient of half the square
    terms = [run(share, each) for each in inputs]
    sums = {{name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}}
    results = [run(update, {{**each, **sums}}) for each in inputs]
    values = [{{name: np.asarray(each["next." + name]) for name in values[0]}} for each in results]
after = [each["param"] for each in values]
print(sum(map(np.linalg.norm, params)), "->", sum(map(np.linalg.norm, after)))
"""


def readme(frozen: FrozenCell, compiled: CompiledCell) -> str:
    """A description of the files and how to use them."""
    texts = notes(compiled, ".onnx")
    narrow = [f"memory.{slot.name}" for slot in compiled.memory_slots if slot.dtype == "bfloat16"]
    if narrow:
        texts.append(
            f"All numbers of {joined(narrow)} are numbers of bfloat16.\n"
            "To store them, keep the upper two bytes of each."
        )
    return _TEXT.format(
        name=frozen.name,
        version=frozen.version,
        digest=frozen.digest,
        opset=OPSET,
        ir=IR_VERSION,
        table=input_table(compiled, has_bfloat16=False),
        notes="\n\n".join(texts),
        example=(_TOGETHER if signatures(compiled)[0].network else _ALONE).format(numbers=numbers(compiled)),
        or_tile=", or tile by tile" if compiled.tile else "",
        phases=phases_note(compiled, "models"),
    )
