"""What the networks that read images have in common."""

from jaxtyping import Array, Float

from ..data import Shape


def with_channels(images: Float[Array, "batch ..."]) -> Float[Array, "batch rows columns channels"]:
    """Images with an axis of channels; a grey image has one."""
    return images if images.ndim == 4 else images[..., None]


def channels_of(input_shape: Shape) -> int:
    """How many channels images of this shape have."""
    return input_shape[-1] if len(input_shape) > 2 else 1


def patches_of(input_shape: Shape, side: int) -> tuple[int, int]:
    """How many square patches an image of this shape has, and how many numbers are in each."""
    rows, columns = input_shape[:2]
    return (rows // side) * (columns // side), side * side * channels_of(input_shape)


def patches(images: Float[Array, "batch ..."], side: int) -> Float[Array, "batch patch numbers"]:
    """The square patches of images; what is left at the edges is dropped."""
    x = with_channels(images)
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x[:, : rows * side, : columns * side].reshape(x.shape[0], rows, side, columns, side, -1)
    return x.swapaxes(2, 3).reshape(x.shape[0], rows * columns, -1)
