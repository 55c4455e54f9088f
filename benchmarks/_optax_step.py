"""What XLA makes of a training step with an exported transformation, beside `optax.adamw`.

python -m benchmarks._optax_step                           # a GPT of six layers, both optimizers
python -m benchmarks._optax_step --layers 12 --ref mnemosyne-elementwise --json report.json

It counts the operations that are handed to XLA and the kernels of the compiled step, per tensor of parameters, and
reads from the compiled program which buffers are donated. It works on whatever device JAX has.
"""

import argparse
import collections
import functools
import json
import math
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any
Shapes = Sequence[tuple[int, ...]]

VOCABULARY, LENGTH, BATCH, HEADS = 256, 32, 4, 4

FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id"),
        *("while", "conditional", "call"),
    )
)
"""Instructions of a compiled program that run no kernel of their own. Bodies of loops count by themselves."""


def gpt(layers: int, width: int) -> dict[str, Tree]:
    """The parameters of a GPT, as arrays of random numbers."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(0.02 * random.standard_normal(shape, np.float32))

    def dense(inputs: int, outputs: int) -> Tree:
        return {"kernel": normal(inputs, outputs), "bias": jnp.zeros(outputs)}

    def norm() -> Tree:
        return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}

    def block() -> Tree:
        return {
            "norm1": norm(),
            "c_attn": dense(width, 3 * width),
            "c_proj": dense(width, width),
            "norm2": norm(),
            "fc1": dense(width, 4 * width),
            "fc2": dense(4 * width, width),
        }

    return {
        "wte": {"embedding": normal(VOCABULARY, width)},
        "wpe": {"embedding": normal(LENGTH, width)},
        **{f"block{layer}": block() for layer in range(layers)},
        "norm": norm(),
        "lm_head": dense(width, VOCABULARY),
    }


def loss(params: Tree, tokens: jax.Array) -> jax.Array:
    """Of the next token of each place."""

    def apply(layer: Tree, x: jax.Array) -> jax.Array:
        return x @ layer["kernel"] + layer["bias"]

    def normalised(layer: Tree, x: jax.Array) -> jax.Array:
        return jax.nn.standardize(x) * layer["scale"] + layer["bias"]

    def attention(layer: Tree, x: jax.Array) -> jax.Array:
        heads = apply(layer["c_attn"], x).reshape(*x.shape[:2], 3, HEADS, -1)
        mixed = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2], is_causal=True)
        return apply(layer["c_proj"], mixed.reshape(x.shape))

    x = params["wte"]["embedding"][tokens[:, :-1]] + params["wpe"]["embedding"][: tokens.shape[1] - 1]
    for name in sorted(name for name in params if name.startswith("block")):
        layer = params[name]
        x = x + attention(layer, normalised(layer["norm1"], x))
        x = x + apply(layer["fc2"], jax.nn.gelu(apply(layer["fc1"], normalised(layer["norm2"], x))))
    logits = apply(params["lm_head"], normalised(params["norm"], x))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


def training_step(transformation: Any) -> Callable[..., Any]:
    """A step of the GPT: gradients, updates and new parameters."""

    def advance(params: Tree, state: Any, tokens: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, tokens)
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return advance


def optimizer_step(transformation: Any) -> Callable[..., Any]:
    """The optimizer's part of a step, on gradients that are there."""

    def advance(params: Tree, state: Any, grads: Tree) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return advance


def compiled_figures(
    function: Callable[..., Any], params: Tree, transformation: Any, batch: Tree, device: Any = None
) -> dict[str, Any]:
    """What a step with donated parameters and state costs to compile, and what the compiled program has.

    **Arguments:**

    - `function`: takes parameters, state and a batch, and gives new parameters and state first.
    - `params`, `batch`: arrays, or their shapes.

    **Returns:**

    Seconds of tracing and compiling, counts of operations and kernels, bytes of memory, and how many of the buffers of
    parameters and state are aliased to outputs.
    """
    state = jax.eval_shape(transformation.init, params)
    started = time.perf_counter()
    sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
    jitted = jax.jit(function, donate_argnums=(0, 1), in_shardings=sharding, out_shardings=sharding)
    lowered = jitted.lower(params, state, batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ended = time.perf_counter()
    donated = [leaf for leaf in jax.tree.leaves((params, state)) if math.prod(leaf.shape)]
    text, memory = compiled.as_text(), compiled.memory_analysis()
    return {
        "tensors": len(jax.tree.leaves(params)),
        "trace_seconds": traced - started,
        "compile_seconds": ended - traced,
        "operations": len(re.findall(r" = \"?(?:stablehlo|chlo)\.", lowered.as_text())),
        "kernels": kernels(text),
        "loops": loops(text),
        "donated": len(donated),
        "aliased": len(aliased(text)),
        "alias_bytes": memory.alias_size_in_bytes,
        "donated_bytes": sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in donated),
        "temp_bytes": memory.temp_size_in_bytes,
    }


def kernels(text: str) -> dict[str, int]:
    """Instructions of a compiled program that run a kernel, by kind. A loop's body counts once, whatever its steps.

    Instructions within a fusion, a reduction or a sort are part of its kernel.
    """
    inner = set(
        re.findall(r"(?:fusion|reduce|reduce-window|sort|scatter|map)\(.*(?:calls|to_apply)=%?([\w.\-]+)", text)
    )
    counts: collections.Counter[str] = collections.Counter()
    for name, body in re.findall(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        if name not in inner:
            counts.update(re.findall(r"^ +(?:ROOT )?%?[\w.\-]+ = (?:\([^\n]*?\)|\S+) ([\w\-]+)\(", body, re.MULTILINE))
    return {kind: count for kind, count in counts.most_common() if kind not in FREE}


def loops(text: str) -> int:
    """Loops of a compiled program."""
    return len(re.findall(r" while\(", text))


def aliased(text: str) -> list[int]:
    """The arguments of a compiled program whose buffers an output takes over."""
    return [int(place) for place in re.findall(r"\{[\d, ]*\}: \((\d+), \{\}", text.split("\n", 1)[0])]


def compile_report(ref: str, shapes: Shapes) -> dict[str, dict[str, Any]]:
    """The figures of an optimizer's step over tensors of these shapes, for a cell of the zoo and for `optax.adamw`."""
    params = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return {
        name: compiled_figures(optimizer_step(transformation), params, transformation, params)
        for name, transformation in transformations(ref).items()
    }


def training_report(ref: str, layers: int, width: int) -> dict[str, dict[str, Any]]:
    """The figures of a training step of a GPT, for a cell of the zoo and for `optax.adamw`."""
    params = jax.eval_shape(functools.partial(gpt, layers, width))
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), np.int32)
    return {
        name: compiled_figures(training_step(transformation), params, transformation, tokens)
        for name, transformation in transformations(ref).items()
    }


def transformations(ref: str) -> dict[str, Any]:
    """The transformation of a cell of the zoo, and AdamW."""
    import mnemo_compile as mnemo

    return {ref: mnemo.to_optax(ref)(), "optax.adamw": optax.adamw(1e-3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", nargs="+", default=["mnemosyne-base", "mnemosyne-elementwise"])
    parser.add_argument("--layers", type=int, nargs="+", default=[6])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
    arguments = parser.parse_args()
    report: list[dict[str, Any]] = []
    for layers in arguments.layers:
        for ref in arguments.ref:
            params = jax.eval_shape(functools.partial(gpt, layers, arguments.width))
            shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
            for part, figures in (
                ("training step", training_report(ref, layers, arguments.width)),
                ("optimizer", compile_report(ref, shapes)),
            ):
                for name, each in figures.items():
                    print(_line(layers, part, name, each), flush=True)
                    report.append({"layers": layers, "part": part, "optimizer": name, **each})
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _line(layers: int, part: str, name: str, figures: dict[str, Any]) -> str:
    tensors, count = figures["tensors"], sum(figures["kernels"].values())
    kinds = ", ".join(f"{kind} {number}" for kind, number in figures["kernels"].items())
    return (
        f"{layers} layers, {part}, {name}: {tensors} tensors; traced in {figures['trace_seconds']:.1f} s, "
        f"compiled in {figures['compile_seconds']:.1f} s; per tensor {figures['operations'] / tensors:.1f} operations, "
        f"{count / tensors:.2f} kernels ({kinds}); {figures['loops']} loops; "
        f"{figures['aliased']} of {figures['donated']} donated buffers aliased, temporary "
        f"{figures['temp_bytes'] / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
