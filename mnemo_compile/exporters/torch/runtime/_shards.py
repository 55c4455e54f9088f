"""Parameters that are spread over processes (DTensors): who updates which part, and what travels for that.

A process updates the part of a tensor that it holds. Where a cut between two processes falls into a tile, the tile is
updated by one of them: its parameter, gradient and memory travel there before the update, and come back after it.
"""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._parts import Facts, Shape, units


class Box(NamedTuple):
    """A range of indices along each axis of a tensor."""

    starts: Shape
    stops: Shape

    @property
    def shape(self) -> Shape:
        """The number of indices along each axis."""
        return tuple(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    def common(self, other: "Box") -> "Box | None":
        """What two boxes have in common, or None if that is nothing."""
        starts = tuple(map(max, self.starts, other.starts))
        stops = tuple(map(min, self.stops, other.stops))
        return Box(starts, stops) if all(map(int.__lt__, starts, stops)) else None

    def within(self, other: "Box") -> tuple[slice, ...]:
        """The place of this box in an array that holds the other one."""
        return tuple(
            slice(start - first, stop - first)
            for start, stop, first in zip(self.starts, self.stops, other.starts, strict=True)
        )


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    # Nobody has one unless the module was imported, which takes long.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def local_grad(param: Any) -> Tensor:
    """What this process holds of a gradient, cut as the parameter is."""
    grad = param.grad
    if is_sharded(param) and grad.placements != param.placements:
        grad = grad.redistribute(param.device_mesh, param.placements)
    return local(grad)


def mesh_of(tensor: Any) -> Any:
    """The mesh of a DTensor, or None."""
    return tensor.device_mesh if is_sharded(tensor) else None


def like(param: Any, own: Tensor, shape: Shape) -> Tensor:
    """A tensor that is cut as a parameter is. `own` is what this process holds of it, `shape` that of the whole."""
    if not is_sharded(param):
        return own
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return type(param.data).from_local(
        own, param.device_mesh, param.placements, run_check=False, shape=torch.Size(shape), stride=strides
    )


def share(param: Any, value: Tensor) -> Tensor:
    """What this process holds of a value that is cut as the parameter is, or that is whole."""
    if is_sharded(value) or not is_sharded(param):
        return local(value)
    box = _boxes(tuple(param.shape), param.device_mesh.mesh.shape, param.placements)[_position(param.device_mesh)]
    return value[box.within(Box((0,) * param.dim(), tuple(param.shape)))]


def check_placements(param: Any, where: str) -> None:
    """Raises a `ValueError` if this is a sharded parameter that cannot be updated in parts."""
    if is_sharded(param) and any(placement.is_partial() for placement in param.placements):
        raise ValueError(
            f"{where} is a DTensor with the placements {param.placements}, and parts of a sum cannot be trained; "
            "redistribute it to Shard or Replicate"
        )


class _Spread(NamedTuple):
    """How a tensor lies on a mesh, for each process of the mesh."""

    held: list[Box]
    """What a process holds."""
    updated: list[Box]
    """What it updates."""
    copies: list[Shape]
    """Which copy of the tensor it holds a part of."""


class Sharding:
    """Tensors that lie on one mesh.

    **Arguments:**

    - `mesh`: the mesh.
    - `facts`: of each tensor.
    - `placements`: how each is cut along the axes of the mesh.
    - `held`: the shape of what this process holds of each.
    """

    def __init__(self, mesh: Any, facts: Sequence[Facts], placements: Sequence[Sequence[Any]], held: Sequence[Shape]):
        self.position = _position(mesh)
        self.spreads = [_spread(each, mesh, own) for each, own in zip(facts, placements, strict=True)]
        for each, spread, own, shape in zip(facts, self.spreads, placements, held, strict=True):
            if shape != spread.held[self.position].shape:
                raise RuntimeError(
                    f"a parameter of shape {each.shape} is cut by the placements {tuple(own)} in an unknown way; use "
                    "Shard or Replicate"
                )
        self.here = [spread.updated[self.position].shape for spread in self.spreads]
        """The shape of the part of each tensor that this process updates."""
        self.moving = [place for place, spread in enumerate(self.spreads) if spread.held != spread.updated]
        """The tensors of which a part travels."""
        self.counts = [not any(spread.copies[self.position]) for spread in self.spreads]
        """Whether the sums of this process count, for each tensor; only one copy's do."""
        self._peers = _peers(mesh)

    def sums(self, rows: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
        """The sums over all processes, of rows with a row per tensor. One reduction.

        Processes hold parts of different sizes, so each has an order of its own. What is added is in that of the facts.

        **Arguments:**

        - `rows`: by name.
        - `places`: the place among the facts of each row's tensor.
        """
        flat = [value.reshape(len(places), -1) for value in rows.values()]
        own = torch.cat(flat, dim=1)
        sums = torch.empty_like(own).index_copy_(0, places, own)
        if not all(self.counts):
            sums = torch.where(torch.tensor(self.counts, device=sums.device)[:, None], sums, 0)
        self._reduce(sums, "SUM")
        pieces = sums.index_select(0, places).split([value.shape[1] for value in flat], dim=1)
        return {name: piece.reshape(rows[name].shape) for name, piece in zip(rows, pieces, strict=True)}

    def agree(self, finite: Tensor) -> Tensor:
        """Whether all processes say yes."""
        said = finite.to(torch.int32).reshape(1)
        self._reduce(said, "MIN")
        return said[0] > 0

    def _reduce(self, values: Tensor, operation: str) -> None:
        import torch.distributed as dist

        dist.all_reduce(values, getattr(dist.ReduceOp, operation), group=self._peers.group)

    def gather(self, arrays: Mapping[str, list[Tensor]], stored: Callable[[str, int], bool]) -> dict[str, list[Tensor]]:
        """The parts that this process updates, of the arrays that it holds.

        **Arguments:**

        - `arrays`: by name, an array per tensor.
        - `stored`: whether a tensor has the array of this name. If not, the array only fills its place.
        """
        given = {name: list(values) for name, values in arrays.items()}
        own = {name: list(values) for name, values in arrays.items()}
        places = [(name, place) for name in arrays for place in self.moving if stored(name, place)]
        for name, place in places:
            array = given[name][place]
            shape = (*self.here[place], *array.shape[len(self.here[place]) :])
            own[name][place] = torch.empty(shape, dtype=array.dtype, device=array.device)
        self._move(places, given, own, lambda spread: (spread.held, spread.updated))
        return own

    def scatter(
        self,
        own: Mapping[str, list[Tensor]],
        arrays: Mapping[str, list[Tensor]],
        stored: Callable[[str, int], bool],
    ) -> None:
        """Writes the parts that this process updated into the arrays that processes hold."""
        places = [(name, place) for name in own for place in self.moving if stored(name, place)]
        self._move(places, own, arrays, lambda spread: (spread.updated, spread.held))

    def _move(
        self,
        places: Sequence[tuple[str, int]],
        source: Mapping[str, list[Tensor]],
        target: Mapping[str, list[Tensor]],
        boxes: Callable[[_Spread], tuple[list[Box], list[Box]]],
    ) -> None:
        """Sends what is in the first boxes to the processes of whose second boxes it is a part, in one collective."""
        if not places:
            return
        sent, received = [], []
        for peer in self._peers.positions:
            sent.append([*self._pieces(places, source, boxes, self.position, peer, True)])
            received.append([*self._pieces(places, target, boxes, peer, self.position, False)])
        flat = [_bytes(piece) for pieces in sent for piece in pieces]
        (name, place), *_ = places
        device = source[name][place].device
        buffer = torch.cat([torch.empty(0, dtype=torch.uint8, device=device), *flat])
        sizes = [
            [sum(piece.numel() * piece.element_size() for piece in pieces) for pieces in each]
            for each in (sent, received)
        ]
        arrived = torch.empty(sum(sizes[1]), dtype=torch.uint8, device=device)
        import torch.distributed as dist

        dist.all_to_all_single(arrived, buffer, sizes[1], sizes[0], group=self._peers.group)
        start = 0
        for piece in itertools.chain.from_iterable(received):
            size = piece.numel() * piece.element_size()
            # A copy, because a view of wider numbers must begin at one of them.
            piece.copy_(arrived[start : start + size].clone().view(piece.dtype).view(piece.shape))
            start += size

    def _pieces(
        self,
        places: Sequence[tuple[str, int]],
        arrays: Mapping[str, list[Tensor]],
        boxes: Callable[[_Spread], tuple[list[Box], list[Box]]],
        sender: int,
        receiver: int,
        is_sent: bool,
    ) -> Iterator[Tensor]:
        """What goes from one process to another, as parts of the arrays of this one."""
        for name, place in places:
            spread = self.spreads[place]
            first, second = boxes(spread)
            if spread.copies[sender] != spread.copies[receiver]:
                continue
            common = first[sender].common(second[receiver])
            if common is not None:
                yield arrays[name][place][common.within(first[sender] if is_sent else second[receiver])]


class _Peers(NamedTuple):
    """The processes of a mesh, in the order of their group."""

    group: Any
    positions: list[int]
    """Their positions in the mesh."""


def _peers(mesh: Any) -> _Peers:
    import torch.distributed as dist

    if mesh.ndim == 1:
        group = mesh.get_group()
    elif mesh.size() == dist.get_world_size():
        group = dist.group.WORLD
    else:
        group = mesh._flatten().get_group()
    positions = {rank: position for position, rank in enumerate(mesh.mesh.flatten().tolist())}
    return _Peers(group, [positions[rank] for rank in dist.get_process_group_ranks(group)])


def _position(mesh: Any) -> int:
    """The position of this process in the mesh."""
    position = 0
    for coordinate, size in zip(mesh.get_coordinate(), mesh.mesh.shape, strict=True):
        position = position * size + coordinate
    return position


def _spread(facts: Facts, mesh: Any, placements: Sequence[Any]) -> _Spread:
    held = _boxes(facts.shape, mesh.mesh.shape, placements)
    unit = units(facts)

    def rounded(corner: Shape) -> Shape:
        """The nearest place where the tensor may be cut."""
        return tuple(
            size if index == size else min((2 * index + step) // (2 * step) * step, size)
            for index, size, step in zip(corner, facts.shape, unit, strict=True)
        )

    updated = [Box(rounded(box.starts), rounded(box.stops)) for box in held]
    copied = [axis for axis, placement in enumerate(placements) if placement.is_replicate()]
    copies = [tuple(coordinate[axis] for axis in copied) for coordinate in _coordinates(mesh.mesh.shape)]
    return _Spread(held, updated, copies)


def _boxes(shape: Shape, mesh_shape: Sequence[int], placements: Sequence[Any]) -> list[Box]:
    """What each process of a mesh holds."""
    cut = [(axis, placement.dim) for axis, placement in enumerate(placements) if not placement.is_replicate()]
    # FSDP2 cuts what tensor parallelism has cut before. It says so by a placement that knows how often.
    cut.sort(key=lambda each: hasattr(placements[each[0]], "split_factor"))
    boxes = []
    for coordinate in _coordinates(mesh_shape):
        starts, stops = [0] * len(shape), list(shape)
        for axis, dim in cut:
            size = stops[dim] - starts[dim]
            step = -(-size // mesh_shape[axis])
            first = starts[dim] + min(coordinate[axis] * step, size)
            starts[dim], stops[dim] = first, min(first + step, stops[dim])
        boxes.append(Box(tuple(starts), tuple(stops)))
    return boxes


def _coordinates(mesh_shape: Sequence[int]) -> list[Shape]:
    """The coordinates of each process of a mesh, in the order of positions."""
    return list(itertools.product(*map(range, mesh_shape)))


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(-1).view(torch.uint8)
