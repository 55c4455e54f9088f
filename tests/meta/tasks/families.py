"""Families of every kind, for the tests of tasks."""

from typing import Any

import jax
import pydantic

from mnemo_compile.meta.tasks import AbstractFamily, FamilyConfig, Params, Supervised, SupervisedConfig

DIGITS, TEACHER, CLUSTERS = {"kind": "digits"}, {"kind": "teacher"}, {"kind": "clusters"}
TEXT, MASKED = {"kind": "markov", "symbols": 12}, {"kind": "markov", "symbols": 12, "masked": 0.3}
FAMILIES: list[dict[str, Any]] = [
    {"network": {"kind": "mlp", "widths": [16]}, "data": DIGITS},
    {"network": {"kind": "mlp", "widths": [16, 16], "activation": "tanh", "normalisation": "layer"}, "data": CLUSTERS},
    {"network": {"kind": "mlp", "widths": [24], "normalisation": "rms"}, "data": {"kind": "wine"}, "batch": 8},
    {"network": {"kind": "mlp", "widths": [], "activation": "relu"}, "data": {"kind": "iris"}, "loss": "focal"},
    {"network": {"kind": "mlp", "widths": [8]}, "data": {"kind": "breast_cancer", "permuted_inputs": True}},
    {"network": {"kind": "mlp", "widths": [32], "activation": "silu"}, "data": TEACHER},
    {"network": {"kind": "mlp", "widths": [16]}, "data": {"kind": "diabetes"}, "loss": "huber"},
    {"network": {"kind": "mlp", "widths": [8]}, "data": DIGITS, "reconstructs": True},
    {"network": {"kind": "mlp", "widths": [16]}, "data": CLUSTERS, "label_noise": 0.3, "batch": 128},
    {"network": {"kind": "conv", "channels": [8, 8]}, "data": DIGITS},
    {"network": {"kind": "conv", "channels": [8], "residual_blocks": 1}, "data": DIGITS},
    {"network": {"kind": "vit", "width": 16}, "data": DIGITS},
    {"network": {"kind": "mixer", "width": 16}, "data": DIGITS},
    {"network": {"kind": "transformer", "width": 16}, "data": TEXT},
    {"network": {"kind": "transformer", "width": 16, "causal": False}, "data": MASKED},
    {"network": {"kind": "recurrent", "width": 16}, "data": TEXT},
    {"network": {"kind": "recurrent", "width": 16, "gates": False}, "data": {**TEXT, "order": 2}},
    {"kind": "quadratic", "dimension": 12, "condition": 30},
    {"kind": "quadratic", "dimension": 12, "condition": 30, "rotated": False, "noise": 0},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "parity", "dimension": 8, "counted": 2}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "modular", "modulus": 5}},
    {
        "network": {"kind": "transformer", "width": 16, "causal": False},
        "data": {"kind": "rearranged", "symbols": 6, "places": 5},
    },
    {"network": {"kind": "mlp", "widths": [64]}, "data": {"kind": "signals"}},
    {"network": {"kind": "conv", "channels": [8, 16]}, "data": {"kind": "shapes", "side": 8}},
    {"network": {"kind": "conv", "channels": [8, 16]}, "data": {"kind": "shapes", "labels": "place"}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "source", "places": 12}},
    {"network": {"kind": "transformer", "width": 16, "causal": False}, "data": {"kind": "source", "masked": 0.2}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "bytes", "places": 12}},
    {"network": {"kind": "vit", "width": 16}, "data": DIGITS, "initialisation": "fixed"},
    {"network": {"kind": "vit", "width": 16}, "data": DIGITS, "activations": "bfloat16"},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "patches"}, "batch": 32},
    {"network": {"kind": "mlp", "widths": [32]}, "data": {"kind": "patches", "hides": False}, "reconstructs": True},
    {"network": {"kind": "mlp", "widths": [8]}, "data": {"kind": "breast_cancer"}, "loss": "hinge"},
    {"network": {"kind": "mlp", "widths": [16]}, "data": {"kind": "diabetes"}, "loss": "absolute"},
    {"network": {"kind": "siren", "width": 24}, "data": {"kind": "photograph", "side": 16}},
    {"network": {"kind": "fourier", "width": 24, "features": 16}, "data": {"kind": "phantom"}},
    {"network": {"kind": "siren", "width": 24, "depth": 2, "frequency": 6}, "data": {"kind": "sinusoids", "count": 4}},
    {"network": {"kind": "denoiser", "width": 8, "depth": 3}, "data": {"kind": "noisy-patches"}, "batch": 8},
    {
        "network": {"kind": "temporal", "channels": [8, 8, 8]},
        "data": {"kind": "cylinder-bell-funnel", "length": 32},
        "batch": 32,
    },
    {"network": {"kind": "recurrent", "width": 24}, "data": {"kind": "copying", "remembered": 2, "delay": 3}},
    {"network": {"kind": "linear", "widths": [4]}, "data": {"kind": "linear-map", "condition": 10}},
    {"network": {"kind": "linear"}, "data": {"kind": "linear-map", "inputs": 16, "decay": 1}},
    {"network": {"kind": "tabular", "width": 16}, "data": {"kind": "friedman"}},
    {"network": {"kind": "periodic", "widths": [16]}, "data": {"kind": "wine"}, "batch": 32},
    {"network": {"kind": "conv", "channels": [16]}, "data": {"kind": "fractals"}},
    {"network": {"kind": "transformer", "width": 16}, "data": {"kind": "prose", "places": 12}},
    {"kind": "variational", "data": DIGITS, "width": 32, "latent": 4},
    {"kind": "variational", "data": DIGITS, "width": 32, "latent": 4, "samples": 3},
    {"kind": "diffusion", "data": DIGITS, "widths": [64]},
    {"kind": "diffusion", "data": {"kind": "spirals"}, "predicts": "velocity", "widths": [32]},
    {"kind": "contrastive", "network": {"kind": "mlp", "widths": [32]}, "data": DIGITS, "batch": 32},
    {"kind": "skip-gram", "data": {"kind": "source"}, "words": 64, "width": 8},
    {"kind": "factorisation", "rows": 24, "columns": 16, "inner": 16, "fraction": 0.5, "rank": 2},
    {
        "kind": "factorisation",
        "rows": 24,
        "columns": 16,
        "inner": 4,
        "factors": 2,
        "fraction": 0.5,
        "rank": 2,
        "biases": True,
    },
    {"kind": "graph", "nodes": 64, "signal": 1, "width": 16},
    {"kind": "physics", "equation": "burgers", "widths": [16, 16]},
    {"kind": "physics", "equation": "helmholtz", "widths": [16, 16]},
    {"kind": "policy", "environment": "cart-pole", "widths": [16]},
    {"kind": "policy", "environment": "pendulum", "widths": [16]},
    {"kind": "policy", "environment": "catch", "widths": [16], "horizon": 9},
]
CONFIG: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(FamilyConfig)


def family_of(config: dict[str, Any]) -> AbstractFamily:
    """The family of a configuration."""
    return CONFIG.validate_python(config).build()


def supervised(data: dict[str, Any], network: dict[str, Any] | None = None, **options: Any) -> Supervised:
    """A network on data, by default a linear one."""
    network = {"kind": "mlp", "widths": []} if network is None else network
    return SupervisedConfig.model_validate({"network": network, "data": data, **options}).build()


def start(family: AbstractFamily, key: jax.Array) -> Params:
    """Parameters that a training starts from."""
    keys = jax.random.split(key, len(family.tensors))
    return [t.mean + t.deviation * jax.random.normal(k, t.shape) for t, k in zip(family.tensors, keys, strict=True)]
