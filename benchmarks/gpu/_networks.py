"""The networks of the paper's evaluation, with random weights made on the device."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from torch import nn

from ._measure import Run


def vit_huge(device: torch.device, *, is_tiny: bool) -> Run:
    """Fine-tuning of all parameters of a ViT-H/14, in float32 with activations in bfloat16."""
    size, batch, classes = (28, 2, 10) if is_tiny else (224, 32, 1000)
    sizes = (32, 2, 2, 64) if is_tiny else (1280, 32, 16, 5120)
    width, layers, heads, inner = sizes
    options: dict[str, Any] = {"num_labels": classes}

    def make() -> nn.Module:
        config = transformers.ViTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            image_size=size,
            patch_size=14,
            **options,
        )
        with device:
            model = transformers.ViTForImageClassification(config)
        return _checkpointed(model)

    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(classes, (batch,), device=device)

    def loss(model: nn.Module) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model(pixel_values=images, labels=labels).loss

    return Run("ViT-H fine-tuning", make, loss, batch, "images")


def t5_xxl(device: torch.device, *, is_tiny: bool) -> Run:
    """Tuning of a soft prompt of 100 tokens in float32, for a frozen T5 v1.1 XXL in bfloat16."""
    sizes = (32, 64, 2, 2, 16) if is_tiny else (4096, 10240, 24, 64, 64)
    width, inner, layers, heads, head = sizes
    batch, length, target, vocabulary = (2, 12, 4, 64) if is_tiny else (8, 412, 64, 32128)
    options: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": 0, "vocab_size": vocabulary}

    def make() -> nn.Module:
        config = transformers.T5Config(
            d_model=width,
            d_ff=inner,
            num_layers=layers,
            num_heads=heads,
            d_kv=head,
            feed_forward_proj="gated-gelu",
            **options,
        )
        with device, _default_dtype(torch.bfloat16):
            model = transformers.T5ForConditionalGeneration(config)
        return SoftPrompt(_checkpointed(model.requires_grad_(False)), 10 if is_tiny else 100, width).to(device)

    inputs = torch.randint(vocabulary, (batch, length), device=device)
    labels = torch.randint(vocabulary, (batch, target), device=device)
    return Run("T5 XXL prompt-tuning", make, lambda model: model(inputs, labels), batch * length, "input tokens")


def bert_large(device: torch.device, *, is_tiny: bool) -> Run:
    """Pre-training of a BERT-large by masked words, in float32 with activations in bfloat16."""
    sizes = (32, 2, 2, 64) if is_tiny else (1024, 24, 16, 4096)
    width, layers, heads, inner = sizes
    batch, length, vocabulary = (2, 16, 64) if is_tiny else (32, 512, 30522)

    def make() -> nn.Module:
        options: dict[str, Any] = {"vocab_size": vocabulary}
        config = transformers.BertConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            **options,
        )
        with device:
            return transformers.BertForMaskedLM(config)

    tokens = torch.randint(vocabulary, (batch, length), device=device)
    is_masked = torch.rand(batch, length, device=device) < 0.15
    is_masked[:, 0] = True
    labels, inputs = tokens.masked_fill(~is_masked, -100), tokens.masked_fill(is_masked, 3)

    def loss(model: nn.Module) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model(input_ids=inputs, labels=labels).loss

    return Run("BERT-large pre-training", make, loss, batch * length, "tokens")


class SoftPrompt(nn.Module):
    """A frozen T5 with trained embeddings before those of its inputs."""

    def __init__(self, model: Any, length: int, width: int):
        super().__init__()
        self.model = model
        self.prompt = nn.Parameter(torch.randn(length, width))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        embedded = self.model.get_input_embeddings()(inputs)
        prompt = self.prompt.to(embedded.dtype).expand(len(inputs), -1, -1)
        return self.model(inputs_embeds=torch.cat([prompt, embedded], dim=1), labels=labels).loss


NETWORKS: dict[str, Callable[..., Run]] = {"vit-huge": vit_huge, "t5-xxl": t5_xxl, "bert-large": bert_large}


def _checkpointed(model: Any) -> Any:
    """Lets the backward pass compute activations again."""
    # The older name is deprecated where the newer one exists.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    return model


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
