"""The networks of the JAX recipes compute what those of `transformers` do, from the files that it saves."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration, ViTConfig, ViTForImageClassification

from examples.jax_recipes import (
    IGNORED,
    load_t5,
    load_vit,
    make_vit,
    mesh_of,
    named,
    shard_t5,
    t5_loss,
    VIT_SHAPES,
)
from mnemo_compile.step import describe


def jittered(model: Any) -> Any:
    """The network with noise on every parameter, so that gains and biases count too."""
    with torch.no_grad():
        for param in model.parameters():
            param += 0.1 * torch.randn(param.shape)
    return model.eval()


def save(model: Any, folder: pathlib.Path, kind: str) -> None:
    model.save_pretrained(folder, max_shard_size="20KB" if kind == "in parts" else "5GB")


@pytest.mark.parametrize("kind", ["whole", "in parts"])
@pytest.mark.parametrize("seed", [0, 1])
def test_vit(tmp_path: pathlib.Path, seed: int, kind: str) -> None:
    torch.manual_seed(seed)
    labels: dict[str, Any] = {"num_labels": 5}
    config = ViTConfig(
        hidden_size=24 + 8 * seed,
        num_hidden_layers=2 + seed,
        num_attention_heads=2 + 2 * seed,
        intermediate_size=40,
        image_size=12,
        patch_size=4,
        **labels,
    )
    model = jittered(ViTForImageClassification(config))
    save(model, tmp_path, kind)
    images = torch.randn(3, 3, 12, 12)
    ours = jax.jit(jax.vmap(load_vit(tmp_path, 5, bool(seed), 0)))(jnp.asarray(images.numpy()))
    np.testing.assert_allclose(ours, model(images).logits.detach(), rtol=1e-4, atol=1e-5)
    # A head for other classes is new, and the rest is what the files hold.
    other = load_vit(tmp_path, 7, False, 0)
    assert other.classifier.weight.shape == (7, 24 + 8 * seed)
    np.testing.assert_array_equal(other.layers[1].mlp.fc1.weight, model.vit.layers[1].mlp.fc1.weight.detach())


def test_names_tell_the_roles_of_a_vit() -> None:
    names, _ = named(make_vit(VIT_SHAPES["vit-tiny-16"], 10, False, 0))
    roles = {name: describe(leaf.shape, name=name).role for name, leaf in names.items()}
    expected = {
        "embeddings.cls_token": "vector",
        "embeddings.position_embeddings": "embedding",
        "embeddings.patch_embeddings.projection.weight": "convolution",
        "layers.3.attention.q_proj.weight": "matrix",
        "layers.3.mlp.fc2.weight": "matrix",
        "layers.3.layernorm_after.weight": "vector",
        "classifier.weight": "head",
    }
    assert {name: roles[name] for name in expected} == expected
    assert describe((100, 4096), name="prompt").role == "embedding"


@functools.cache
def t5(seed: int, tied_scaling: bool) -> Any:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"tie_word_embeddings": tied_scaling, "decoder_start_token_id": 0}
    config = T5Config(
        vocab_size=60,
        d_model=32,
        d_ff=48,
        d_kv=8 + 4 * seed,
        num_layers=2 + seed,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        **options,
    )
    return jittered(T5ForConditionalGeneration(config))


@pytest.mark.parametrize(("seed", "tied_scaling"), [(0, False), (1, True)])
def test_t5_with_a_soft_prompt(tmp_path: pathlib.Path, seed: int, tied_scaling: bool) -> None:
    model = t5(seed, tied_scaling)
    save(model, tmp_path, "in parts")
    random = np.random.default_rng(seed)
    # Distances beyond the last bucket occur too.
    inputs, targets = random.integers(2, 60, (3, 40)), random.integers(2, 60, (3, 9))
    mask = np.arange(40) < np.array([[40], [25], [3]])
    targets[1, 5:] = IGNORED
    prompt = torch.randn(6, 32, requires_grad=True)
    embedded = torch.cat([prompt.expand(3, -1, -1), model.shared(torch.tensor(inputs))], dim=1)
    seen = torch.cat([torch.ones(3, 6), torch.tensor(mask)], dim=1).long()
    theirs = model(inputs_embeds=embedded, attention_mask=seen, labels=torch.tensor(targets))
    theirs.loss.backward()
    network = shard_t5(load_t5(tmp_path, jnp.float32), mesh_of(1, 1))
    assert network.shape.scales == tied_scaling
    rows = (jnp.asarray(inputs), jnp.asarray(mask), jnp.asarray(targets))
    step = jax.jit(jax.value_and_grad(t5_loss, has_aux=True))
    (loss, _), grad = step(jnp.asarray(prompt.detach().numpy()), network, *rows)
    np.testing.assert_allclose(loss, theirs.loss.detach(), rtol=1e-5)
    assert prompt.grad is not None
    np.testing.assert_allclose(grad, prompt.grad, rtol=1e-3, atol=1e-6)


def test_weights_of_bfloat16_are_read(tmp_path: pathlib.Path) -> None:
    model = t5(0, False).to(torch.bfloat16)
    save(model, tmp_path, "whole")
    network = load_t5(tmp_path, jnp.bfloat16)
    np.testing.assert_array_equal(network.encoder.layers.mlp.wo[1].astype(np.float32), wide(model))


def wide(model: Any) -> np.ndarray:
    return model.encoder.block[1].layer[1].DenseReluDense.wo.weight.detach().float().numpy()
