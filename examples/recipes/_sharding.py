"""Parameters that are divided over processes."""

import accelerate
import click
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, MixedPrecisionPolicy


def shard(model: nn.Module, accelerator: accelerate.Accelerator) -> None:
    """Divides each block of the network, and the rest of it, by FSDP2."""
    if accelerator.num_processes == 1:
        raise click.UsageError("--shard needs several processes; start them with accelerate launch or torchrun.")
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    for module in model.modules():
        if type(module).__name__ in kinds:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
