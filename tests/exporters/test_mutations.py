"""Verification notices every number: one of them changed in what an emitter wrote, and the export fails."""

import ast
import copy
import dataclasses
import io
import math
import pathlib
import re
import shutil
import tokenize
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.extend.mlir.dialects.stablehlo as stablehlo
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from mnemo_compile.exporters import exporter_of, targets
from mnemo_compile.frozen import FrozenCell
from mnemo_compile.program import compile_cell
from mnemo_compile.verify import Reference, STEP_BOUND

FEW = 8
"""Mutants of each export in the quick run; the slow one takes them all."""
STEPS = 25
"""Of the run; the warm-up without a horizon ends before."""
HARMLESS = {
    "how many coordinates are worked on at once": r"update\.onnx: constant\.int64\.1\.1024$",
    "a factor of all features of a query or of all keys, which the quotient cancels": r"random_features|0\.7071",
    "a floor of the normalisers, which at first multiplies memory that is zero": r"min=0\.1\)|0\.1000000|, 0\.1\)",
    "the least horizon, below which there is no step": r"horizon = ",
    "the step of a role that the function does not serve, and the phase does": (
        r"update\.onnx: derived\.log_step_[25]$|update_matrix\.onnx: derived\.log_step(_[34])?$"
    ),
    "what a kernel takes for coordinates that a chunk lacks, where verification has whole ones": (
        r"_kernels\.py: line \d+: \w+ = tl\.load\(\w+_at.*other=0"
    ),
    "how many tensors a shape has, which is one here and many in phases": r"update\.onnx: constant\.int64\.1\.2_0_1$",
}
"""Numbers that may be others, and how they are found."""


class Mutant(NamedTuple):
    """One file of an export with one number changed."""

    file: str
    what: str
    content: bytes


@pytest.fixture(scope="module")
def reference(frozen: FrozenCell) -> Reference:
    cell = frozen.cell()
    return Reference(cell, compile_cell(cell), steps=STEPS)


def changed(number: float) -> float:
    """Another number: a tenth more, but of a bound that is out of the way a bound that is in it."""
    if abs(number) < 1e-20 or math.isinf(number):
        return 1.0
    return number * (1e4 if abs(number) > 1e6 else 1e3 if abs(number) < 1e-4 else 1.1)


def in_python(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """The generated functions with each number in turn changed, floats by value and integers by one."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    inside = {
        line
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.NUMBER or token.start[0] not in inside:
            continue
        new = repr(int(token.string) - 1) if token.string.isdigit() else repr(changed(float(token.string)))
        row, start, end = token.start[0] - 1, token.start[1], token.end[1]
        line = lines[row][:start] + new + lines[row][end:]
        yield f"line {row + 1}: {lines[row].strip()}", "".join([*lines[:row], line, *lines[row + 1 :]]).encode()


def in_weights(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    arrays = safetensors.numpy.load(path.read_bytes())
    for name in sorted(arrays):
        array = arrays[name].copy()
        if array.size and array.dtype == np.float32:
            array.flat[array.size // 2] = array.flat[array.size // 2] * 1.05 + 0.02
            yield name, safetensors.numpy.save({**arrays, name: array})


def in_onnx(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """The models with one number of each initializer changed."""
    names = [initializer.name for initializer in onnx.load(path).graph.initializer]
    for place, name in enumerate(names):
        model = onnx.load(path)
        tensor = model.graph.initializer[place]
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.size == 0 or array.dtype == np.bool_:
            continue
        middle = array.size // 2
        old = array.flat[middle]
        if array.dtype == np.float32:
            array.flat[middle] = old * 1.05 + 0.02 if array.ndim else changed(float(old))
        else:
            # One before the first place is the last, which may be the same one.
            array.flat[middle] = old - 1 if old else 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
        yield name, model.SerializeToString()


def in_stablehlo(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """The programs with each floating-point number of their text in turn changed."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    text = exported.mlir_module()
    for match in re.finditer(r"dense<(-?\d[\d.]*(?:[eE][-+]\d+)?)> : tensor<f32>", text):
        new = f"{text[: match.start(1)]}{changed(float(match[1])):.8E}{text[match.end(1) :]}"
        yield f"character {match.start(1)}: {match[0]}", with_module(exported, new)


def with_module(exported: Any, text: str) -> bytes:
    """The exported function with another program."""
    module = stablehlo.serialize_portable_artifact_str(text, stablehlo.get_current_version())
    return dataclasses.replace(exported, mlir_module_serialized=module).serialize()


FORMS: dict[str, Callable[[pathlib.Path], Iterator[tuple[str, bytes]]]] = {
    "*/_phases.py": in_python,
    "*/_kernels.py": in_python,
    "*/weights.safetensors": in_weights,
    "**/*.onnx": in_onnx,
    "**/*.jaxexport": in_stablehlo,
}


def mutants(folder: pathlib.Path) -> list[Mutant]:
    found = []
    for pattern, form in FORMS.items():
        for path in sorted(folder.glob(pattern)):
            file = str(path.relative_to(folder))
            found.extend(Mutant(file, what, content) for what, content in form(path))
    return found


def survives(reference: Reference, frozen: FrozenCell, target: str, folder: pathlib.Path) -> bool:
    """Whether verification would let this export pass."""
    onnxruntime.set_default_logger_severity(4)
    try:
        opened = exporter_of(target).open(frozen, folder)
        for case in reference.cases:
            # The first wrong case ends it: most mutants are wrong in many.
            alone = copy.copy(reference)
            alone.cases = [case]
            if max(alone.phase_errors(opened).values()) > STEP_BOUND:
                return False
        return max(reference.run_errors(opened)) <= STEP_BOUND
    except Exception:
        # What does not run is not written either.
        return False
    finally:
        onnxruntime.set_default_logger_severity(2)


def survivors(
    reference: Reference, frozen: FrozenCell, emitted: pathlib.Path, target: str, folder: pathlib.Path, few: int | None
) -> list[str]:
    """The mutants that pass, of a number of them or of all."""
    shutil.copytree(emitted, folder)
    assert survives(reference, frozen, target, folder)
    found = mutants(folder)
    assert len(found) > 50
    chosen = np.random.default_rng(0).permutation(len(found))[:few]
    alive = []
    for mutant in (found[i] for i in chosen):
        path = folder / mutant.file
        original = path.read_bytes()
        path.write_bytes(mutant.content)
        name = f"{mutant.file}: {mutant.what}"
        if survives(reference, frozen, target, folder) and not any(re.search(p, name) for p in HARMLESS.values()):
            alive.append(name)
        path.write_bytes(original)
    return alive


@pytest.mark.parametrize(
    "target", ["torch", "onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("optax", "stablehlo"))]
)
def test_a_number_changed_in_an_emitters_output_fails(
    reference: Reference,
    frozen: FrozenCell,
    emitted: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
    target: str,
) -> None:
    assert survivors(reference, frozen, emitted(target), target, tmp_path / target, FEW) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", targets())
def test_every_number_changed_in_an_emitters_output_fails(
    reference: Reference,
    frozen: FrozenCell,
    emitted: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
    target: str,
) -> None:
    assert survivors(reference, frozen, emitted(target), target, tmp_path / target, None) == []
