"""A small network, its data, and the plain loop that every place must agree with."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn, Tensor

STEPS = 10
BATCH = 8
Example = dict[str, Tensor]


class Network(nn.Module):
    """An embedding, a normalisation, matrices with tiles, and a head that may be the embedding."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(40, 24)
        self.norm = nn.LayerNorm(24)
        self.encoder = nn.Linear(24, 150)
        self.decoder = nn.Linear(150, 24)
        self.head = nn.Linear(24, 40, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.norm(self.embedding(input_ids).mean(1))
        logits = self.head(hidden + self.decoder(nn.functional.gelu(self.encoder(hidden))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def examples(count: int = STEPS * BATCH) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    symbols = torch.randint(40, (count, 6), generator=generator)
    return [{"input_ids": row, "labels": row[0]} for row in symbols]


def batches(data: list[Example], size: int = BATCH) -> list[Example]:
    return [
        {name: torch.stack([example[name] for example in data[start : start + size]]) for name in data[0]}
        for start in range(0, len(data), size)
    ]


def loss_of(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return model(**batch)["loss"]


def loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Iterable[Example], clip: float | None = None
) -> dict[str, Tensor]:
    """Trains with a batch per step. Returns the parameters."""
    for batch in data:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return parameters(model)


def plain(Mnemosyne: Any, data: list[Example], *, clip: float | None = None, **options: Any) -> dict[str, Tensor]:
    """The parameters after a plain loop over all batches."""
    model = Network()
    found = batches(data)
    return loop(model, Mnemosyne(model.named_parameters(), **{"total_steps": len(found), **options}), found, clip)


def parameters(model: nn.Module, name: Callable[[str], str] = lambda name: name) -> dict[str, Tensor]:
    return {name(key): param.detach().clone() for key, param in model.named_parameters()}


def assert_close(left: Mapping[str, Tensor], right: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    assert left.keys() == right.keys()
    for name, value in right.items():
        error = float((left[name] - value).norm())
        assert error <= tolerance * float(value.norm()), f"{name}: {error}"
