"""What each of two processes does in `test_ranks.py`, for the package in the folder `sys.argv[1]`.

Run by torchrun. Each process trains with its half of every batch. A check that fails raises.
"""

import importlib
import sys
from typing import Any

import accelerate
import torch
import torch.distributed as dist
from torch import nn, Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.integrations.places import assert_close, BATCH, batches, examples, loop, loss_of, Network, parameters, STEPS
from tests.ranks import leave


def own_batches() -> list[dict[str, Tensor]]:
    return batches(examples(), BATCH // 2)[dist.get_rank() :: dist.get_world_size()]


def whole(model: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in parameters(model).items()
    }


def check_copies(Mnemosyne: Any, tied: bool) -> None:
    """DistributedDataParallel, with clipping."""
    expected = Network(tied)
    loop(expected, Mnemosyne(expected.named_parameters(), total_steps=STEPS), batches(examples()), clip=1.0)
    model = DistributedDataParallel(Network(tied))
    loop(model, Mnemosyne(model.named_parameters(), total_steps=STEPS), own_batches(), clip=1.0)
    assert_close(whole(model), parameters(expected))


def check_shards(Mnemosyne: Any, tied: bool) -> None:
    """fully_shard of layers and of the whole, with clipping."""
    expected, model = Network(tied), Network(tied)
    loop(expected, Mnemosyne(expected.named_parameters(), total_steps=STEPS), batches(examples()), clip=1.0)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (model.encoder, model.decoder, model):
        fully_shard(module, mesh=mesh)
    loop(model, Mnemosyne(model.named_parameters(), total_steps=STEPS), own_batches(), clip=1.0)
    assert_close(whole(model), parameters(expected))


def check_accelerate(Mnemosyne: Any) -> None:
    """Accelerate wraps model and optimizer."""
    expected = Network()
    loop(expected, Mnemosyne(expected.named_parameters(), total_steps=STEPS), batches(examples()))
    accelerator = accelerate.Accelerator(cpu=True)
    made = Network()
    model, optimizer = accelerator.prepare(made, Mnemosyne(made.named_parameters(), total_steps=STEPS))
    assert isinstance(model, DistributedDataParallel)
    for batch in own_batches():
        optimizer.zero_grad()
        accelerator.backward(loss_of(model, batch))
        optimizer.step()
    assert_close(whole(model), parameters(expected))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    torch.set_num_threads(1)
    Mnemosyne = importlib.import_module("mnemosyne_base").Mnemosyne

    dist.init_process_group("gloo")
    for tied in (False, True):
        check_copies(Mnemosyne, tied)
        check_shards(Mnemosyne, tied)
    check_accelerate(Mnemosyne)
    leave()
