"""Networks as functions of a list of tensors: many members of one shape run in one program."""

import abc
import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pydantic
from jaxtyping import Array, Float, Int

Params = Sequence[Float[Array, "..."]]
Width = Annotated[int, pydantic.Field(ge=1, le=4096)]
Depth = Annotated[int, pydantic.Field(ge=1, le=64)]
Activation = Literal["relu", "gelu", "tanh", "silu"]
Normalisation = Literal["none", "layer", "rms"]
Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """A parameter tensor, and the normal distribution that it starts from."""

    shape: Shape
    deviation: float = 0.0
    mean: float = 0.0


def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
    """Of outputs with the variance of the inputs, times `gain` squared."""
    return Tensor((rows, columns), gain * rows**-0.5)


def bias(width: int) -> Tensor:
    """Zeros."""
    return Tensor((width,))


def gain(width: int) -> Tensor:
    """Ones, of a normalisation."""
    return Tensor((width,), 0.0, 1.0)


class AbstractNetwork(eqx.Module):
    """An architecture of fixed sizes."""

    name: eqx.AbstractVar[str]
    tensors: eqx.AbstractVar[tuple[Tensor, ...]]

    @abc.abstractmethod
    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch ..."]:
        """Outputs for a batch of inputs."""


class AbstractNetworkConfig(pydantic.BaseModel, abc.ABC):
    """The sizes that are chosen; the others follow from the data."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @abc.abstractmethod
    def build(self, inputs: Shape, outputs: int) -> AbstractNetwork:
        """A network from inputs of this shape (for tokens: places and symbols) to so many outputs."""


def activate(name: Activation, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The nonlinearity of that name."""
    return {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "tanh": jnp.tanh, "silu": jax.nn.silu}[name](x)


def normalise(x: Float[Array, "*shape width"], gain: Array, bias: Array | None = None) -> Float[Array, "*shape width"]:
    """Layer normalisation with a bias, root-mean-square normalisation without."""
    if bias is None:
        return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-5) * gain
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias


def _norm_tensors(kind: Normalisation, width: int) -> tuple[Tensor, ...]:
    return {"none": (), "rms": (gain(width),), "layer": (gain(width), bias(width))}[kind]


class MLPConfig(AbstractNetworkConfig):
    """A multilayer perceptron on all inputs at once."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Width, ...]
    activation: Activation = "relu"
    normalisation: Normalisation = "none"

    def build(self, inputs: Shape, outputs: int) -> "MLP":
        return MLP(self, math.prod(inputs), outputs)


class MLP(AbstractNetwork):
    """x ← activation(normalise(W x + b)) for each width, then linear."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: MLPConfig = eqx.field(static=True)

    def __init__(self, config: MLPConfig, inputs: int, outputs: int):
        tensors, width = [], inputs
        for wide in config.widths:
            tensors += [matrix(width, wide), bias(wide), *_norm_tensors(config.normalisation, wide)]
            width = wide
        self.tensors = (*tensors, matrix(width, outputs), bias(outputs))
        norm = "" if config.normalisation == "none" else f"-{config.normalisation}"
        self.name = f"mlp-{'x'.join(map(str, config.widths)) or 'linear'}-{config.activation}{norm}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x, left = inputs.reshape(inputs.shape[0], -1), iter(params)
        for _ in self.config.widths:
            x = x @ next(left) + next(left)
            if self.config.normalisation != "none":
                x = normalise(x, next(left), next(left) if self.config.normalisation == "layer" else None)
            x = activate(self.config.activation, x)
        return x @ next(left) + next(left)


def _patches(x: Float[Array, "batch side side channels"]) -> Float[Array, "batch side side patch"]:
    """The 3×3 neighbourhood of each place, zero outside: a convolution is then one matrix product, under vmap too."""
    side = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=-1)


def _halved(x: Float[Array, "batch side side channels"]) -> Array:
    """Means of 2×2 places."""
    half = x.shape[1] // 2
    return x[:, : 2 * half, : 2 * half].reshape(x.shape[0], half, 2, half, 2, -1).mean(axis=(2, 4))


class ConvConfig(AbstractNetworkConfig):
    """3×3 convolutions, each but the first at half the resolution of the one before, and the mean over places."""

    kind: Literal["conv"] = "conv"
    channels: Annotated[tuple[Width, ...], pydantic.Field(min_length=1, max_length=4)]
    activation: Activation = "relu"
    residual_blocks: Annotated[int, pydantic.Field(ge=0, le=8)] = 0
    """Of two convolutions each, with normalisation, after every one of `channels`."""

    def build(self, inputs: Shape, outputs: int) -> "Conv":
        return Conv(self, inputs[-1] if len(inputs) > 2 else 1, outputs)


class Conv(AbstractNetwork):
    """A convolutional network, residual if it has blocks."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: ConvConfig = eqx.field(static=True)

    def __init__(self, config: ConvConfig, channels: int, outputs: int):
        tensors: list[Tensor] = []

        def kernel(inner: int, outer: int) -> Tensor:
            return Tensor((3, 3, inner, outer), (9 * inner) ** -0.5)

        for wide in config.channels:
            tensors += [kernel(channels, wide), bias(wide)]
            for _ in range(config.residual_blocks):
                tensors += [gain(wide), bias(wide), kernel(wide, wide), bias(wide), kernel(wide, wide), bias(wide)]
            channels = wide
        self.tensors = (*tensors, matrix(channels, outputs), bias(outputs))
        what = f"resnet{config.residual_blocks}" if config.residual_blocks else "conv"
        self.name = f"{what}-{'x'.join(map(str, config.channels))}-{config.activation}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        left = iter(params)
        x = inputs if inputs.ndim == 4 else inputs[..., None]

        def convolve(x: Array) -> Array:
            kernel, shift = next(left), next(left)
            return _patches(x) @ kernel.reshape(-1, kernel.shape[-1]) + shift

        for stage, _ in enumerate(self.config.channels):
            x = activate(self.config.activation, convolve(_halved(x) if stage else x))
            for _ in range(self.config.residual_blocks):
                inner = activate(self.config.activation, convolve(normalise(x, next(left), next(left))))
                x = x + convolve(inner)
        return x.mean(axis=(1, 2)) @ next(left) + next(left)


def _block(width: int, depth: int) -> tuple[Tensor, ...]:
    """A Transformer's, whose branches start small in deep networks."""
    small = (2 * depth) ** -0.5
    return (
        *(gain(width), bias(width), matrix(width, 3 * width), bias(3 * width)),
        *(matrix(width, width, small), bias(width)),
        *(gain(width), bias(width), matrix(width, 4 * width), bias(4 * width)),
        *(matrix(4 * width, width, small), bias(width)),
    )  # fmt: skip


def _attend(x: Float[Array, "batch place width"], params: Params, heads: int, causal: bool) -> Array:
    """A pre-norm block: attention, then a network of each place."""
    gain1, bias1, qkv, qkv_bias, out, out_bias, gain2, bias2, up, up_bias, down, down_bias = params
    projected = (normalise(x, gain1, bias1) @ qkv + qkv_bias).reshape(*x.shape[:2], 3, heads, -1)
    q, k, v = projected[:, :, 0], projected[:, :, 1], projected[:, :, 2]
    scores = jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e9)
    attended = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), v).reshape(x.shape)
    x = x + attended @ out + out_bias
    return x + jax.nn.gelu(normalise(x, gain2, bias2) @ up + up_bias) @ down + down_bias


class _Attention(AbstractNetworkConfig):
    width: Width
    depth: Depth = 1
    heads: Width = 2

    @pydantic.model_validator(mode="after")
    def _heads_divide_width(self) -> "_Attention":
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}")
        return self


class ViTConfig(_Attention):
    """A pre-norm Vision Transformer."""

    kind: Literal["vit"] = "vit"
    patch: Annotated[int, pydantic.Field(ge=1, le=16)] = 2

    def build(self, inputs: Shape, outputs: int) -> "ViT":
        return ViT(self, inputs, outputs)


class ViT(AbstractNetwork):
    """Dosovitskiy et al. 2021 (arXiv 2010.11929), with the mean over patches in the place of a class token."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: ViTConfig = eqx.field(static=True)

    def __init__(self, config: ViTConfig, inputs: Shape, outputs: int):
        width, patch = config.width, config.patch
        channels = inputs[2] if len(inputs) > 2 else 1
        places = (inputs[0] // patch) * (inputs[1] // patch)
        self.tensors = (
            *(matrix(patch * patch * channels, width), bias(width), Tensor((places, width), 0.02)),
            *(_block(width, config.depth) * config.depth),
            *(gain(width), bias(width), matrix(width, outputs), bias(outputs)),
        )
        self.name = f"vit-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        patch = self.config.patch
        x = inputs if inputs.ndim == 4 else inputs[..., None]
        rows, columns = x.shape[1] // patch, x.shape[2] // patch
        x = x[:, : rows * patch, : columns * patch].reshape(x.shape[0], rows, patch, columns, patch, -1)
        x = x.swapaxes(2, 3).reshape(x.shape[0], rows * columns, -1) @ params[0] + params[1] + params[2]
        for start in range(3, 3 + 12 * self.config.depth, 12):
            x = _attend(x, params[start : start + 12], self.config.heads, causal=False)
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias).mean(axis=1) @ head + head_bias


class TransformerConfig(_Attention):
    """A Transformer on symbols: a decoder, which sees what is before a place, or an encoder."""

    kind: Literal["transformer"] = "transformer"
    causal: bool = True

    def build(self, inputs: Shape, outputs: int) -> "Transformer":
        return Transformer(self, inputs, outputs)


class Transformer(AbstractNetwork):
    """Logits for each place of a sequence of symbols."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: TransformerConfig = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, inputs: Shape, outputs: int):
        places, symbols = inputs
        width = config.width
        self.tensors = (
            *(Tensor((symbols, width), 0.02), Tensor((places, width), 0.02)),
            *(_block(width, config.depth) * config.depth),
            *(gain(width), bias(width), matrix(width, outputs), bias(outputs)),
        )
        self.name = f"{'decoder' if config.causal else 'encoder'}-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Int[Array, "batch place"]) -> Float[Array, "batch place outputs"]:
        x = params[0][inputs] + params[1]
        for start in range(2, 2 + 12 * self.config.depth, 12):
            x = _attend(x, params[start : start + 12], self.config.heads, self.config.causal)
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias) @ head + head_bias


class RecurrentConfig(AbstractNetworkConfig):
    """A recurrent network on symbols: plain (tanh) or with gates (GRU)."""

    kind: Literal["recurrent"] = "recurrent"
    width: Width
    gates: bool = True

    def build(self, inputs: Shape, outputs: int) -> "Recurrent":
        return Recurrent(self, inputs, outputs)


class Recurrent(AbstractNetwork):
    """Logits for each place of a sequence of symbols; a GRU (Cho et al. 2014, arXiv 1406.1078) or its tanh alone."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: RecurrentConfig = eqx.field(static=True)

    def __init__(self, config: RecurrentConfig, inputs: Shape, outputs: int):
        width, parts = config.width, 3 if config.gates else 1
        self.tensors = (
            *(Tensor((inputs[1], width), 1.0), matrix(width, parts * width), bias(parts * width)),
            *(matrix(width, parts * width), matrix(width, outputs), bias(outputs)),
        )
        self.name = f"{'gru' if config.gates else 'rnn'}-{width}"
        self.config = config

    def __call__(self, params: Params, inputs: Int[Array, "batch place"]) -> Float[Array, "batch place outputs"]:
        embedding, enter, shift, again, head, head_bias = params
        entered = embedding[inputs] @ enter + shift

        def step(state: Array, x: Array) -> tuple[Array, Array]:
            recurrent = state @ again
            if self.config.gates:
                (x_update, x_reset, x_new), (update, reset, new) = (jnp.split(y, 3, axis=-1) for y in (x, recurrent))
                kept = jax.nn.sigmoid(x_update + update + 1)
                new = jnp.tanh(x_new + jax.nn.sigmoid(x_reset + reset) * new)
                state = kept * state + (1 - kept) * new
            else:
                state = jnp.tanh(x + recurrent)
            return state, state

        start = jnp.zeros((inputs.shape[0], self.config.width), entered.dtype)
        _, states = jax.lax.scan(step, start, entered.swapaxes(0, 1))
        return states.swapaxes(0, 1) @ head + head_bias


class MixerConfig(AbstractNetworkConfig):
    """An MLP-mixer on 2×2 patches."""

    kind: Literal["mixer"] = "mixer"
    width: Width
    depth: Depth = 1

    def build(self, inputs: Shape, outputs: int) -> "Mixer":
        return Mixer(self, inputs, outputs)


class Mixer(AbstractNetwork):
    """Tolstikhin et al. 2021 (arXiv 2105.01601): networks over places and over channels in turn."""

    name: str = eqx.field(static=True)
    tensors: tuple[Tensor, ...] = eqx.field(static=True)
    config: MixerConfig = eqx.field(static=True)

    def __init__(self, config: MixerConfig, inputs: Shape, outputs: int):
        width = config.width
        channels = inputs[2] if len(inputs) > 2 else 1
        places = (inputs[0] // 2) * (inputs[1] // 2)
        block = (
            *(gain(width), bias(width), matrix(places, 2 * places), bias(2 * places)),
            *(matrix(2 * places, places), bias(places)),
            *(gain(width), bias(width), matrix(width, 2 * width), bias(2 * width)),
            *(matrix(2 * width, width), bias(width)),
        )  # fmt: skip
        self.tensors = (
            *(matrix(4 * channels, width), bias(width), *(block * config.depth)),
            *(gain(width), bias(width), matrix(width, outputs), bias(outputs)),
        )
        self.name = f"mixer-{width}x{config.depth}"
        self.config = config

    def __call__(self, params: Params, inputs: Array) -> Float[Array, "batch outputs"]:
        x = inputs if inputs.ndim == 4 else inputs[..., None]
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * rows, : 2 * columns].reshape(x.shape[0], rows, 2, columns, 2, -1).swapaxes(2, 3)
        x = x.reshape(x.shape[0], rows * columns, -1) @ params[0] + params[1]
        for start in range(2, 2 + 12 * self.config.depth, 12):
            gain1, bias1, over, over_bias, back, back_bias, gain2, bias2, up, up_bias, down, down_bias = params[
                start : start + 12
            ]
            turned = normalise(x, gain1, bias1).swapaxes(1, 2)
            x = x + (jax.nn.gelu(turned @ over + over_bias) @ back + back_bias).swapaxes(1, 2)
            x = x + jax.nn.gelu(normalise(x, gain2, bias2) @ up + up_bias) @ down + down_bias
        gain, bias, head, head_bias = params[-4:]
        return normalise(x, gain, bias).mean(axis=1) @ head + head_bias


NetworkConfig = Annotated[
    MLPConfig | ConvConfig | ViTConfig | TransformerConfig | RecurrentConfig | MixerConfig,
    pydantic.Field(discriminator="kind"),
]
