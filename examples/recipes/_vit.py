"""Vision Transformers by shape."""

from typing import Any

import transformers

VIT_SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "vit-tiny-16": (96, 4, 4, 192, 16, 4),
    "vit-base": (768, 12, 12, 3072, 224, 16),
    "vit-large": (1024, 24, 16, 4096, 224, 16),
    "vit-huge": (1280, 32, 16, 5120, 224, 14),
    "vit-36x16": (1280, 36, 16, 5120, 224, 14),
}
"""Width, layers, heads, width of the perceptrons, side of images, side of patches."""


def vit_config(shape: str, classes: int, channels: int = 3) -> transformers.ViTConfig:
    """The configuration of a shape, without dropout as in ViT's own."""
    width, layers, heads, inner, size, patch = VIT_SHAPES[shape]
    labels: dict[str, Any] = {"num_labels": classes}
    return transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        **labels,
    )
