"""What each process of a group does in `test_sharding.py`, for the package in the folder `sys.argv[2]`.

Run by torchrun, as `ranks.py CHECK FOLDER`. A check that fails raises.
"""

import copy
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import nn, Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor, DTensor, Replicate, Shard
from torch.utils._python_dispatch import TorchDispatchMode

from tests.ranks import leave

SHAPES = {
    "encoder.weight": (300, 130),
    "encoder.bias": (300,),
    "thin.weight": (3, 40),
    "attention.qkv.weight": (390, 130),
    "attention.out_proj.weight": (130, 257),
    "conv.weight": (37, 5, 3, 3),
    "experts.w1": (5, 40, 30),
    "token_embedding.weight": (41, 16),
    "norm.weight": (7,),
    "lm_head.weight": (41, 16),
    "scale": (),
}
"""Of whole tensors, by name. Most are cut into parts of different sizes, and through tiles."""
STEPS = 10
Make = Callable[[Sequence[tuple[str, Tensor]]], Any]


def values(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def train(optimizer: Any, params: dict[str, nn.Parameter], steps: range, skip: int | None = None) -> dict[str, Tensor]:
    """The whole parameters after steps with the same gradients in every process."""
    for step in steps:
        for name, grad in values(100 + step).items():
            param = params[name]
            if isinstance(param, DTensor):
                grad = distribute_tensor(grad, param.device_mesh, param.placements)
            param.grad = grad
            if step == skip and name == "encoder.weight" and dist.get_rank() == dist.get_world_size() - 1:
                local = grad.to_local() if isinstance(grad, DTensor) else grad
                local.view(-1)[-1:] = math.nan
        optimizer.step()
    return {name: whole(param) for name, param in params.items()}


def assert_close(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        error = float((given[name] - value).norm() / value.norm())
        assert error < 1e-5, f"{name}: {error}"


def placed(mesh: DeviceMesh, placements: dict[str, Any], default: Sequence[Any]) -> dict[str, nn.Parameter]:
    return {
        name: nn.Parameter(
            distribute_tensor(value, mesh, placements.get(name, default) if value.dim() else [Replicate()] * mesh.ndim)
        )
        for name, value in values(0).items()
    }


def by_rows(mesh: DeviceMesh) -> dict[str, nn.Parameter]:
    """As `fully_shard` cuts."""
    return placed(mesh, {}, [Shard(0)])


def by_other_axes(mesh: DeviceMesh) -> dict[str, nn.Parameter]:
    """As tensor parallelism cuts."""
    columns = {name: [Shard(len(shape) - 1)] for name, shape in SHAPES.items() if len(shape) > 1}
    return placed(mesh, {**columns, "norm.weight": [Replicate()], "conv.weight": [Shard(2)]}, [Shard(0)])


def check_cuts(make: Make) -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plain = {name: nn.Parameter(value) for name, value in values(0).items()}
    expected = train(make([*plain.items()]), plain, range(STEPS))
    for cut in (by_rows, by_other_axes):
        params = cut(mesh)
        assert_close(train(make([*params.items()]), params, range(STEPS)), expected)
    check_bad(make, mesh)
    check_traffic(make, mesh)
    check_network(make, mesh)


def check_orders(make: Make) -> None:
    """A tensor that fills a block in one process, and not in another, has another place among the tensors there."""
    package = sys.modules["__main__"].package  # pyright: ignore[reportAttributeAccessIssue]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def trained(optimizer: Any, params: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        for step in range(3):
            for name, param in params.items():
                # One gradient shrinks, so that sums of one tensor are no sums of another.
                grad = values(100 + step)[name] * (0.1**step if name == "encoder.weight" else 1)
                if isinstance(param, DTensor):
                    grad = distribute_tensor(grad, param.device_mesh, param.placements)
                param.grad = grad
            optimizer.step()
        return {name: whole(param) for name, param in params.items()}

    plain = {name: nn.Parameter(value) for name, value in values(0).items()}
    expected = trained(make([*plain.items()]), plain)
    for size in (5_000, 15_000, 20_000):
        params = by_rows(mesh)
        package._backend._ALONE = size  # Larger tensors fill blocks.
        given = package.Mnemosyne([*params.items()], total_steps=STEPS, block_size=size, backend="torch")
        assert_close(trained(given, params), expected)


def check_bad(make: Make, mesh: DeviceMesh) -> None:
    """A gradient that is not finite in one process stops the step in all."""
    params = by_rows(mesh)
    params["norm.weight"] = nn.Parameter(values(0)["norm.weight"])
    optimizer = make([*params.items()])
    before = train(optimizer, params, range(3))
    after = train(optimizer, params, range(3, 4), skip=3)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert optimizer.skipped_steps == 1


class Collectives(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            self.names.append(func.name().partition("::")[2])
        return func(*args, **(kwargs or {}))


def check_traffic(make: Make, mesh: DeviceMesh) -> None:
    """Sums once per phase, tiles there and back: not once per tensor."""
    params = by_rows(mesh)
    optimizer = make([*params.items()])
    train(optimizer, params, range(2))
    with Collectives() as seen:
        optimizer.step()
    sums = [name for name in seen.names if "allreduce" in name]
    moves = [name for name in seen.names if "alltoall" in name]
    assert len(sums) <= 2 and len(moves) <= 2 and len(sums) + len(moves) == len(seen.names), seen.names


def check_network(make: Make, mesh: DeviceMesh) -> None:
    """A network under `fully_shard`, with gradients that it computes."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(33, 70), nn.GELU(), nn.Linear(70, 10))

    def run(model: nn.Module) -> dict[str, Tensor]:
        optimizer = make([*model.named_parameters()])
        generator = torch.Generator().manual_seed(1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(16, 33, generator=generator)).square().mean().backward()
            optimizer.step()
        return {name: whole(param) for name, param in model.named_parameters()}

    expected, model = run(network()), network()
    fully_shard(model, mesh=mesh)
    assert_close(run(model), expected)


def check_meshes(make: Make) -> None:
    """Copies of shards (HSDP), and cuts along two axes of a mesh."""
    count = dist.get_world_size() // 2
    mesh = init_device_mesh("cpu", (2, count), mesh_dim_names=("outer", "inner"))
    plain = {name: nn.Parameter(value) for name, value in values(0).items()}
    expected = train(make([*plain.items()]), plain, range(STEPS))
    columns = {name: [Shard(0), Shard(1)] for name, shape in SHAPES.items() if len(shape) > 1}
    rows = {name: [Shard(0), Replicate()] for name, shape in SHAPES.items() if len(shape) == 1}
    for placements, default in (({}, [Replicate(), Shard(0)]), ({**columns, **rows}, [Shard(0), Shard(0)])):
        params = placed(mesh, placements, default)
        assert_close(train(make([*params.items()]), params, range(STEPS)), expected)
    # Some tensors lie on a part of the mesh, as those do that tensor parallelism leaves whole.
    inner = placed(mesh["inner"], {}, [Shard(0)])
    mixed = {
        **placed(mesh, placements, default),
        "encoder.bias": inner["encoder.bias"],
        "thin.weight": inner["thin.weight"],
    }
    assert_close(train(make([*mixed.items()]), mixed, range(STEPS)), expected)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(33, 70), nn.Linear(70, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.gelu(self.first(x)))


def steps_of(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(16, 33, generator=generator)).square().mean().backward()
        optimizer.step()


def check_save(make: Make) -> None:
    """Saves a checkpoint in the middle, and the parameters at the end."""
    folder = pathlib.Path(sys.argv[3])
    model = Network()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = make([*model.named_parameters()])
    steps_of(model, optimizer, range(5))
    state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    checkpoint.state_dict_saver.save(state, checkpoint_id=folder / "checkpoint")
    steps_of(model, optimizer, range(5, 10))
    final = {name: whole(param) for name, param in model.named_parameters()}
    if dist.get_rank() == 0:
        torch.save(final, folder / "final.pt")


def check_load(make: Make) -> None:
    """Goes on from the checkpoint, with another number of processes."""
    folder = pathlib.Path(sys.argv[3])
    model = Network()
    if dist.get_world_size() > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = make([*model.named_parameters()])
    state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    checkpoint.state_dict_loader.load(state, checkpoint_id=folder / "checkpoint")
    model.load_state_dict(state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    assert int(optimizer.param_groups[0]["step"]) == 5
    steps_of(model, optimizer, range(5, 10))
    assert_close({name: whole(param) for name, param in model.named_parameters()}, torch.load(folder / "final.pt"))


def check_kernels(make: Make) -> None:
    """Kernels of shards take the steps of torch operations on whole tensors."""
    package = sys.modules["__main__"].package  # pyright: ignore[reportAttributeAccessIssue]
    names = ("encoder.weight", "norm.weight", "lm_head.weight", "thin.weight", "scale")
    plain = {name: nn.Parameter(values(0)[name]) for name in names}
    sharded = by_rows(init_device_mesh("cpu", (dist.get_world_size(),)))
    cut = {name: sharded[name] for name in names}
    results = []
    for params, backend in ((plain, "torch"), (cut, "triton")):
        optimizer = package.Mnemosyne([*params.items()], total_steps=STEPS, backend=backend)
        for step in range(2):
            for name, param in params.items():
                grad = values(100 + step)[name]
                if isinstance(param, DTensor):
                    grad = distribute_tensor(grad, param.device_mesh, param.placements)
                param.grad = grad
            optimizer.step()
        results.append({name: whole(param) for name, param in params.items()})
    assert_close(results[1], results[0])
    # All processes but one hold nothing.
    held = nn.Parameter(
        distribute_tensor(torch.ones(1, 7), init_device_mesh("cpu", (dist.get_world_size(),)), [Shard(0)])
    )
    held.grad = torch.ones_like(held)
    package.Mnemosyne([("norm.weight", held)], backend="triton").step()
    assert not torch.equal(whole(held), torch.ones(1, 7))


def check_refusals(make: Make) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def refused(action: Callable[[], Any]) -> str:
        try:
            action()
        except ValueError as error:
            return str(error)
        raise AssertionError("not refused")

    params = [nn.Parameter(torch.ones(33, 33)) for _ in range(4)]
    package = sys.modules["__main__"].package  # pyright: ignore[reportAttributeAccessIssue]
    assert "use fully_shard" in refused(lambda: ZeroRedundancyOptimizer(params, package.Mnemosyne, total_steps=30))
    for original in (False, True):
        model = FullyShardedDataParallel(Network(), use_orig_params=original, device_id=torch.device("cpu"))
        assert "use fully_shard" in refused(lambda: package.Mnemosyne(model.parameters()))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    from torch.distributed.tensor import Partial

    partial = nn.Parameter(DTensor.from_local(torch.ones(3, 3), mesh, [Partial()]))
    assert "parts of a sum" in refused(lambda: package.Mnemosyne([partial]))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    torch.set_num_threads(1)
    (found,) = [path.name for path in pathlib.Path(sys.argv[2]).iterdir() if (path / "_shards.py").exists()]
    package = __import__(found)
    dist.init_process_group("gloo")
    for name in sys.argv[1].split(","):
        globals()[f"check_{name}"](lambda params: package.Mnemosyne(copy.copy(params), total_steps=STEPS))
    leave()
