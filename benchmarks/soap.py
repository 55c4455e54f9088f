"""SOAP on the ladder's decoders, at the best of four learning rates, beside the other baselines.

pip install pytorch-optimizer
python -m benchmarks.soap                                # every decoder
python -m benchmarks.soap --task decoder decoder-depth-8

There is no SOAP for JAX that is kept up, so that of pytorch-optimizer steps on JAX's gradients. It has what the
ladder's other baselines have: a warm-up of 5 %, a cosine to zero, weight decay 0.1 and gradients clipped at norm 1.
"""

import argparse
import importlib
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch

from mnemo_compile.meta.evaluation.ladder._ladder import _baselines
from mnemo_compile.meta.evaluation.ladder._optimizers import BASELINES, CLIP, WARM_UP, WEIGHT_DECAY
from mnemo_compile.meta.evaluation.ladder._rungs import Ladder, load_ladder, Rung
from mnemo_compile.meta.evaluation.ladder._training import Trainer

RATES = (1e-3, 3e-3, 1e-2, 3e-2)


class Decoder:
    """A rung's start, data and losses."""

    def __init__(self, rung: Rung):
        self.rung = rung
        # The optimizer is not used; a trainer knows start, batches and validation.
        self.trainer = Trainer(rung, BASELINES["adamw"])
        self.data = self.trainer._data(1.0)
        family = self.trainer._family(self.data)

        @eqx.filter_jit
        def gradient(params: Any, data: Any, step: Any) -> Any:
            batch = family.batch(data.instance, jax.random.fold_in(data.key, step), "train")
            return jax.grad(family.loss)(params, batch)

        self.gradient = gradient
        self.validate = jax.jit(self.trainer._validate)

    def train(self, rate: float) -> float:
        """The validation loss at the end."""
        optimizers: Any = importlib.import_module("pytorch_optimizer")
        params = [torch.tensor(np.asarray(param)) for param in self.trainer.start.params()]
        optimizer = optimizers.SOAP(params, lr=rate, weight_decay=WEIGHT_DECAY)
        steps = self.rung.task.steps
        for step in range(steps):
            warm = min((step + 1) / (WARM_UP * steps), 1.0)
            optimizer.param_groups[0]["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
            grads = self.gradient([jnp.asarray(param.numpy()) for param in params], self.data, jnp.int32(step))
            for param, grad in zip(params, grads, strict=True):
                param.grad = torch.tensor(np.asarray(grad))
            torch.nn.utils.clip_grad_norm_(params, CLIP)
            optimizer.step()
        loss, _ = self.validate([jnp.asarray(param.numpy()) for param in params], self.data)
        return float(loss)


def main() -> None:
    """Prints one row per decoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", default=[], help="only these rungs")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    arguments = parser.parse_args()
    ladder: Ladder = load_ladder()
    for rung in ladder.rungs:
        if not rung.is_text or not rung.options.is_plain or (arguments.task and rung.name not in arguments.task):
            continue
        decoder = Decoder(rung)
        losses = {rate: decoder.train(rate) for rate in arguments.rates}
        best = min(losses, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)
        others = {name: f"{result.result:.3f}" for name, result in _baselines(ladder, rung, None).items()}
        grid = ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in losses.items())
        print(f"{rung.name}: SOAP {losses[best]:.3f} at {best:g} ({grid}); {others}", flush=True)


if __name__ == "__main__":
    main()
