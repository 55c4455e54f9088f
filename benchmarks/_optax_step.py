"""What XLA makes of a training step with an exported transformation, beside `optax.adamw`.

python -m benchmarks._optax_step                                          # a GPT of six layers
python -m benchmarks._optax_step --layers 12 --ref mnemosyne-elementwise
JAX_PLATFORMS=cpu python -m benchmarks._optax_step --target-config benchmarks/h200.txtpb   # a GPU that is not there

It counts the operations that are handed to XLA, and the kernels of the compiled step per tensor of parameters. The
compiled text says which donated buffers outputs take over. No step runs.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import re
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._compiled import Compiled

Tree = Any
Shapes = Sequence[tuple[int, ...]]

VOCABULARY, LENGTH, BATCH, HEADS = 256, 32, 4, 4


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


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a step with donated parameters and state costs to compile, and what the compiled program has."""

    tensors: int
    """Of parameters."""
    operations: int
    """That are handed to the compiler."""
    kernels: int
    """In the text of the compiled program, where the body of a loop counts once."""
    launches: int
    """Kernels that a step runs, as far as the program says how often its loops run."""
    loops: int
    products: int
    """Products of matrices with other shapes or operands than the rest, each of which a GPU's compiler tunes."""
    donated: int
    """Buffers of parameters and state."""
    aliased: int
    """Of these, how many an output takes over."""
    temporary_bytes: int
    trace_seconds: float
    compile_seconds: float
    cpu_seconds: float
    """Of tracing and compiling, on all cores and in the compiler's own processes."""


def compiled_figures(
    function: Callable[..., Any], params: Tree, transformation: Any, batch: Tree, device: Any = None
) -> Figures:
    """The figures of a step, compiled for a device.

    **Arguments:**

    - `function`: takes parameters, state and a batch, and gives new parameters and state first.
    - `params`, `batch`: arrays, or their shapes.
    - `device`: None is the device that JAX takes.
    """
    state = jax.eval_shape(transformation.init, params)
    sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
    jitted = jax.jit(function, donate_argnums=(0, 1), in_shardings=sharding, out_shardings=sharding)
    started, before = time.perf_counter(), _cpu_seconds()
    lowered = jitted.lower(params, state, batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ended, after = time.perf_counter(), _cpu_seconds()
    places = [place for place, leaf in enumerate(jax.tree.leaves((params, state))) if math.prod(leaf.shape)]
    text, memory = str(compiled.as_text()), compiled.memory_analysis()
    assert memory is not None
    program = Compiled(text)
    return Figures(
        tensors=len(jax.tree.leaves(params)),
        operations=len(re.findall(r" = \"?(?:stablehlo|chlo)\.", lowered.as_text())),
        kernels=program.kernels,
        launches=program.launches,
        loops=len(re.findall(r" while\(", text)),
        products=program.products,
        donated=len(places),
        aliased=len(program.aliased.intersection(places)),
        temporary_bytes=memory.temp_size_in_bytes,
        trace_seconds=traced - started,
        compile_seconds=ended - traced,
        cpu_seconds=after - before,
    )


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for, such as the assembler of GPUs."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def compile_report(ref: str, shapes: Shapes, device: Any = None) -> dict[str, Figures]:
    """The figures of an optimizer's step over tensors of these shapes, for a cell of the zoo and for `optax.adamw`."""
    params = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return {
        name: compiled_figures(optimizer_step(transformation), params, transformation, params, device)
        for name, transformation in transformations(ref).items()
    }


def training_report(ref: str, layers: int, width: int, device: Any = None) -> dict[str, dict[str, Figures]]:
    """The figures of a training step of a GPT and of the optimizer's part of it, for a cell and for `optax.adamw`."""
    params = jax.eval_shape(functools.partial(gpt, layers, width))
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), np.int32)
    return {
        name: {
            "training step": compiled_figures(training_step(each), params, each, tokens, device),
            "optimizer": compiled_figures(optimizer_step(each), params, each, params, device),
        }
        for name, each in transformations(ref).items()
    }


def transformations(ref: str) -> dict[str, Any]:
    """The transformation of a cell of the zoo, and AdamW."""
    import mnemo_compile as mnemo

    return {ref: mnemo.to_optax(ref)(), "optax.adamw": optax.adamw(1e-3)}


def described_device(target: pathlib.Path) -> Any:
    """A GPU that need not be there, for which programs are compiled without tuning. It needs `jax-cuda12-plugin`."""
    from jax.experimental import topologies

    # The transformation asks which kind of device there is.
    jax.default_backend = lambda: "gpu"
    topology = topologies.get_topology_desc("gpu", "cuda", target_config=target.read_text(), topology="1x1x1")
    return topology.devices[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", default="mnemosyne-base")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--target-config", type=pathlib.Path, help="description of a GPU that need not be there")
    parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
    arguments = parser.parse_args()
    device = arguments.target_config and described_device(arguments.target_config)
    report = training_report(arguments.ref, arguments.layers, arguments.width, device)
    for name, parts in report.items():
        for part, figures in parts.items():
            print(f"{part} with {name}: {_line(figures)}", flush=True)
    if arguments.json is not None:
        plain = {
            name: {part: dataclasses.asdict(each) for part, each in parts.items()} for name, parts in report.items()
        }
        arguments.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _line(figures: Figures) -> str:
    tensors = figures.tensors
    return (
        f"{tensors} tensors; per tensor {figures.operations / tensors:.1f} operations, {figures.kernels / tensors:.2f} "
        f"kernels and {figures.launches / tensors:.2f} launches; {figures.loops} loops, "
        f"{figures.products} products to tune; {figures.aliased} of {figures.donated} donated buffers aliased, "
        f"temporary {figures.temporary_bytes / 1e6:.1f} MB; traced in {figures.trace_seconds:.1f} s and compiled in "
        f"{figures.compile_seconds:.1f} s, {figures.cpu_seconds:.1f} s of a core"
    )


if __name__ == "__main__":
    main()
