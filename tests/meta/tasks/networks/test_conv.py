"""A convolution is what JAX calls one."""

import jax
import jax.numpy as jnp
import numpy as np

from mnemo_compile.meta.tasks.networks._conv import Conv, ConvConfig


def test_a_convolution_as_a_matrix_product_is_a_convolution() -> None:
    network = Conv(ConvConfig(channels=(5,)), 3, 2)
    random = np.random.default_rng(0)
    kernel, shift, head, head_bias = params = [
        jnp.asarray(random.normal(size=tensor.shape), jnp.float32) for tensor in network.tensors
    ]
    images = jnp.asarray(random.normal(size=(4, 6, 6, 3)), jnp.float32)
    convolved = jax.lax.conv_general_dilated(
        images, kernel, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = jnp.maximum(convolved + shift, 0).mean(axis=(1, 2)) @ head + head_bias
    np.testing.assert_allclose(network(params, images), expected, rtol=1e-4, atol=1e-5)
