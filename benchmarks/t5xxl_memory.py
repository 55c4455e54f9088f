"""Memory per device of prompt-tuning T5 XXL (11 billion frozen parameters in bfloat16), compiled but never run.

The step of examples/prompt_tune_t5_jax.py is compiled ahead of time for meshes of simulated devices, so no array of the
network exists. XLA's plan for one device says what it would hold. XLA for CPUs multiplies bfloat16 in float32, so it
plans float32 copies of a layer's matrices that an accelerator does not need.

python -m benchmarks.t5xxl_memory                        # 8 and 64 devices
python -m benchmarks.t5xxl_memory --model t5-large --devices 8
"""

import argparse
import os
import time

EXAMPLES_PER_DEVICE = 1
INPUT = 412
"""With a prompt of 100 the encoder sees 512 tokens."""
PROMPT = 100
TARGET = 64


def compile_step(model: str, devices: int) -> str:
    """A line about the step on this number of devices."""
    # JAX reads the number of devices when it is imported.
    import jax
    import jax.numpy as jnp
    import optax

    import mnemo_compile as mnemo
    from examples.jax_recipes import make_t5, mesh_of, sharding_of, t5_loss, T5_SHAPES, t5_sharding

    shape, batch = T5_SHAPES[model], EXAMPLES_PER_DEVICE * devices
    mesh = mesh_of(devices, batch)
    transformation = mnemo.to_optax("mnemosyne-base")(total_steps=1000)

    def advance(state, network, inputs, mask, targets):
        def loss_of(params):
            return t5_loss(params["prompt"], network, inputs, mask, targets)[0]

        params, inner = state
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, inner = transformation.update(grads, inner, params)
        return (optax.apply_updates(params, updates), inner), loss

    def placed(tree, sharding):
        return jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding(mesh, array.shape)), tree
        )

    def before():
        params = {"prompt": jnp.zeros((PROMPT, shape.width), jnp.float32)}
        return params, transformation.init(params)

    network = placed(jax.eval_shape(lambda: make_t5(shape, jnp.bfloat16, 0)), t5_sharding)
    state = placed(jax.eval_shape(before), sharding_of)
    rows = [jax.ShapeDtypeStruct((batch, length), jnp.int32) for length in (INPUT, INPUT, TARGET)]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network))
    began = time.perf_counter()
    compiled = jax.jit(advance, donate_argnums=0).lower(state, network, *placed(rows, sharding_of)).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    assert memory is not None
    arguments, workspace = memory.argument_size_in_bytes / 1e9, memory.temp_size_in_bytes / 1e9
    return (
        f"{model}, {parameters:,} parameters, {devices} devices, batch {batch}: "
        f"per device {arguments:.2f} GB of weights and state, {workspace:.2f} GB of workspace; "
        f"compiled in {seconds:.0f} s"
    )


def main() -> None:
    """Prints a line per mesh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="t5-xxl")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64])
    arguments = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(arguments.devices)}"
    for devices in arguments.devices:
        print(compile_step(arguments.model, devices), flush=True)


if __name__ == "__main__":
    main()
