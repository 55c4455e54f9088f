"""Prints what Triton's compiler makes of kernels for an H100: `compile_kernels.py FOLDER PACKAGE KERNELS`."""

import importlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
import triton.backends.nvidia
import triton.language as tl
from triton.backends.compiler import GPUTarget

KIND = {"PARAM": tl.float32, "GRAD": tl.float32, "PLAIN": True}
CONSTANTS: dict[str, dict[str, Any]] = {
    "measure": {**KIND, "SLOTS": 0, "CHUNKS": 1024, "STEPS": 8},
    "update": {**KIND, "SLOTS": 3, "CHUNKS": 1024},
    "share": {"BLOCK": 128},
    "recall": {"BLOCK": 128},
    "add_sums": {"SUMS": 3, "DECIDES": True, "BLOCK": 1024},
    "settle": {"SUMS": 1, "BLOCK": 1024},
    "gather_sample": {
        "ARRAY": 1,
        "DTYPE": tl.bfloat16,
        "WIDTH": 3,
        "PER_CHUNK": False,
        "LENGTH": 32,
        "BLOCK": 32,
    },
    "move_states": {"ROW": 3, "SIZE": 300, "WRITE": True},
    "tiles": {**KIND, "SLOTS": 1, "HEIGHT": 128, "WIDTH": 128, "PRECISION": "bfloat16", "PART": 0},
}
"""Constants of each kernel. `CHUNKS` counts coordinates here."""
LONGS = ("table", "pointers", "step", "skipped")
INTEGERS = ("blocks", "starts", "group", "ranges", "targets", "owners", "chunks")
COUNTS = ("tensors", "groups", "offset", "count", "first")


def kind(name: str, constants: dict[str, Any]) -> str:
    """The type of a parameter."""
    if name in constants:
        return "constexpr"
    return "i32" if name in COUNTS else "*i64" if name in LONGS else "*i32" if name in INTEGERS else "*fp32"


def report(kernel: Any, constants: dict[str, Any]) -> dict[str, int]:
    """Counts in the compiled text of a kernel."""
    signature = {name: kind(name, constants) for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if signature[name][0] == "*"}
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs=values, attrs=aligned)
    warps = 8 if "HEIGHT" in constants else 4
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    text = made.asm["ptx"]
    return {
        "reads": len(re.findall(r"ld\.global", text)),
        "wide reads": len(re.findall(r"ld\.global\S*\.v[24]", text)),
        "writes": len(re.findall(r"st\.global", text)),
        "wide writes": len(re.findall(r"st\.global\S*\.v[24]", text)),
        "matrix instructions": len(re.findall(r"wgmma\.mma", text)),
        "shared": made.metadata.shared,
        "spilled": spilled(text),
    }


def spilled(text: str) -> int:
    """Bytes that a thread puts aside for want of registers."""
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / "kernel.ptx"
        path.write_text(text)
        folder = pathlib.Path(str(triton.backends.nvidia.__file__)).parent / "bin"
        arguments = ["-v", "--gpu-name=sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))]
        # There is one for each generation of GPUs, and not each of them knows this version of the text.
        tries = [
            subprocess.run([str(ptxas), *arguments], capture_output=True, text=True)
            for ptxas in sorted(folder.glob("ptxas*"))
        ]
    said = next(each.stderr for each in tries if not each.returncode)
    return int(re.findall(r"(\d+) bytes spill stores", said)[0])


def main(folder: str, package: str, names: str) -> None:
    sys.path.insert(0, folder)
    generated, parts = (importlib.import_module(f"{package}.{file}") for file in ("_kernels", "_kernel_parts"))
    length = importlib.import_module(f"{package}._phases").CHUNK_LENGTH
    reports = {}
    for name in names.split(","):
        kernel = getattr(generated, name, None) or getattr(parts, name)
        constants = dict(CONSTANTS[name])
        if "CHUNKS" in constants:
            constants["CHUNKS"] //= length
        reports[name] = report(kernel, constants)
    print(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
