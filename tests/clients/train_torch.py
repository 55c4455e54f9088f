"""Trains a network with the exported torch package `mnemosyne_base`, where only what that requires need be installed.

python -I train_torch.py

Half of the training is saved, and goes on in a new network and optimizer.
"""

import importlib
import io
import sys

import torch
from torch import nn

Mnemosyne = importlib.import_module("mnemosyne_base").Mnemosyne
STEPS = 200


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 4),
    )  # fmt: skip


def bars(count):
    """Images of a bar in noise, and whether it stands or lies, in the first or the second half."""
    labels = torch.randint(4, (count,))
    places = torch.randint(4, (count,)) + 4 * (labels % 2)
    images = 0.3 * torch.randn(count, 8, 8)
    images[torch.arange(count), places] += 1
    lying = images.transpose(1, 2)
    return torch.where((labels < 2)[:, None, None], images, lying)[:, None], labels


def train(model, optimizer, steps):
    loss = torch.zeros(())
    for _ in range(steps):
        images, labels = bars(64)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


def main():
    torch.set_num_threads(1)
    model = network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    train(model, optimizer, STEPS // 2)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    held = torch.load(file)
    model = network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    model.load_state_dict(held[0])
    optimizer.load_state_dict(held[1])
    loss = train(model, optimizer, STEPS // 2)
    with torch.no_grad():
        images, labels = bars(1000)
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    if optimizer.skipped_steps or not accuracy > 0.95:
        sys.exit(f"it skipped {optimizer.skipped_steps} steps, and ends at loss {loss:.3g}, accuracy {accuracy:.1%}")
    print(f"loss {loss:.3g}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
