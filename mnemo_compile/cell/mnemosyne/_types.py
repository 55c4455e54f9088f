"""Types of arrays, by what their axes count."""

from jaxtyping import Array, Float

Grid = Float[Array, "chunks length"]
"""A number per coordinate."""
Tile = Float[Array, "tiles height width"]
"""A number per coordinate of a tile."""
PerTensor = Float[Array, " tensors"]
"""A number per tensor."""
NamedRows = dict[str, Float[Array, "rows ..."]]
"""Named arrays with a row per chunk, or per tensor."""
InitialState = dict[str, Float[Array, "..."]]
"""The state of one tensor before the first step."""
