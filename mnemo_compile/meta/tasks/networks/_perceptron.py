"""Dense layers one after another, which several networks and families are made of."""

from collections.abc import Callable, Sequence

from jaxtyping import Array, Float

from ._interface import Params, Tensor
from ._layers import linear


def perceptron(name: str, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Dense layers between these widths, with the names of a `torch.nn.Sequential` that has activations between."""
    pairs = zip(widths[:-1], widths[1:], strict=True)
    layers = [linear(f"{name}.{2 * place}", *pair, 2**0.5 if place else 1.0) for place, pair in enumerate(pairs)]
    return tuple(tensor for layer in layers for tensor in layer)


def perceive(
    params: Params, x: Float[Array, "*batch inputs"], activation: Callable[[Array], Array]
) -> Float[Array, "*batch outputs"]:
    """The outputs of a perceptron, with the activation between its layers."""
    for place in range(0, len(params), 2):
        x = x @ params[place] + params[place + 1]
        x = activation(x) if place < len(params) - 2 else x
    return x
