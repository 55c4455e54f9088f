"""One optimizer step on a GPU: agreement, times, launches and memory, beside AdamW and Muon of torch.

It needs torch and the folder of exported optimizers. This file alone can be copied to a machine that has both.

mnemo export mnemosyne-base --target torch --out build
mnemo export mnemosyne-elementwise --target torch --out build
python -m benchmarks.step --device cuda --minutes 4                # on a GPU, in the checkout
python step_gpu.py --exports torch --minutes 4 --out step.json     # on a GPU, with copies of this file and the folder
python -m benchmarks.step --device cpu --tiny                      # every part on a CPU, at sizes that say nothing
TRITON_INTERPRET=1 python -m benchmarks.step --device cpu --tiny --minutes 20 --parts agreement     # kernels on a CPU

Parts run in order of importance. Each row is printed as it comes, and the last table holds each figure beside what it
must reach. What does not fit into the minutes is skipped, and named. Parts run in other processes: one that fails,
hangs or ruins the state of the device leaves the rest.

**Agreement.** 30 steps are compared with those on a CPU, in float64 for float32 parameters. An error is the norm of the
difference, relative to the way that the tensor has gone, or to a hundredth of its start if that is more.

**Times.** `ms` is the median time of a step in a loop that waits for the device only at its end, between two events of
the device. `host ms` is what the host takes to ask for the step. A second table times replays of a CUDA graph of it.
Every form takes turns with fused AdamW on the same parameters and gradients, and a ratio is the median over the turns.
Caches are left alone: large networks do not fit into them, and tiny ones do for every form. AdamW is `capturable` only
in the graph. Muon has the hidden matrices, and fused AdamW the other tensors.

**Launches** are kernels of one step, by torch.profiler, or by the nodes of a graph where the profiler sees none.
**Extra memory** is the peak of allocated memory during steps, beyond parameters, gradients and state.
"""

import argparse
import collections
import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor

Record = dict[str, Any]
Named = list[tuple[str, nn.Parameter]]
Optimizers = list[torch.optim.Optimizer]
Make = Callable[[Named, bool], Optimizers]
"""Makes the optimizers of named parameters. The second argument says whether a graph will hold their step."""
Shape = tuple[int, ...]
Step = Callable[[], Any]

ELEMENTWISE, BASE = "elementwise", "base"
FUSED, FOREACH, MUON = "AdamW, fused", "AdamW, foreach", "Muon, AdamW"
VIT_B, VIT_H, GPT_2, PROMPT = "ViT-B/16", "ViT-H/14", "GPT-2-medium", "T5-v1.1-XXL prompt"
TINY_TENSORS = "1,000 tiny tensors"
MIB = 2**20
HIDDEN_FROM_MUON = ("head.weight", "wte.weight", "wpe.weight", "prompt_embeddings.weight")
"""Ends of the names of matrices that are embeddings or heads."""


# Networks: the shapes of their tensors, by name.


def vision_transformer(width: int, depth: int, patch: int, classes: int, side: int = 224) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (side // patch) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for block in range(depth):
        shapes |= _norms(f"blocks.{block}", ("norm1", "norm2"), width)
        sizes = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
        for name, (outputs, inputs) in sizes.items():
            shapes[f"blocks.{block}.{name}.weight"] = (outputs * width, inputs * width)
            shapes[f"blocks.{block}.{name}.bias"] = (outputs * width,)
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return shapes | {"head.weight": (classes, width), "head.bias": (classes,)}


def gpt_2(width: int, depth: int, vocabulary: int, length: int) -> dict[str, Shape]:
    """Its dense layers hold inputs × outputs, and its head is its embedding."""
    shapes: dict[str, Shape] = {"wte.weight": (vocabulary, width), "wpe.weight": (length, width)}
    for block in range(depth):
        shapes |= _norms(f"h.{block}", ("ln_1", "ln_2"), width)
        sizes = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
        for name, (inputs, outputs) in sizes.items():
            shapes[f"h.{block}.{name}.weight"] = (inputs * width, outputs * width)
            shapes[f"h.{block}.{name}.bias"] = (outputs * width,)
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def _norms(block: str, names: Sequence[str], width: int) -> dict[str, Shape]:
    return {f"{block}.{name}.{kind}": (width,) for name in names for kind in ("weight", "bias")}


def soft_prompts(width: int, tokens: int = 100) -> dict[str, Shape]:
    """Of the encoder and of the decoder."""
    return {f"{side}.prompt_embeddings.weight": (tokens, width) for side in ("encoder", "decoder")}


def small_tensors(count: int, width: int) -> dict[str, Shape]:
    """Matrices, convolutions and vectors."""
    kinds: dict[str, Shape] = {
        "fc1.weight": (2 * width, width),
        "fc1.bias": (2 * width,),
        "conv.weight": (width, 4, 3, 3),
        "norm.weight": (width,),
        "proj.weight": (width, width),
    }
    names = [(f"blocks.{block}.{kind}", shape) for block in range(count) for kind, shape in kinds.items()]
    return dict(names[:count])


def networks(*, is_tiny: bool) -> dict[str, dict[str, Shape]]:
    if is_tiny:
        return {
            VIT_B: vision_transformer(32, 1, 16, 10, side=32),
            VIT_H: vision_transformer(48, 1, 14, 10, side=28),
            GPT_2: gpt_2(32, 1, 64, 16),
            PROMPT: soft_prompts(32, tokens=10),
            TINY_TENSORS: small_tensors(20, 8),
        }
    return {
        VIT_B: vision_transformer(768, 12, 16, 1000),
        VIT_H: vision_transformer(1280, 32, 14, 1000),
        GPT_2: gpt_2(1024, 24, 50257, 1024),
        PROMPT: soft_prompts(4096),
        TINY_TENSORS: small_tensors(1000, 16),
    }


class VisionTransformer(nn.Module):
    """The network whose training steps are timed."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, classes: int, side: int):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(images), -1, -1)
        return self.head(self.blocks(torch.cat([first, patches], dim=1) + self.pos_embed)[:, 0])


# Optimizers


def load_exported(folder: pathlib.Path) -> dict[str, Any]:
    """The classes of exported packages by the names of their folders: this folder, or those in it."""
    exported = {}
    for file in sorted(file for file in (folder / "__init__.py", *folder.glob("*/__init__.py")) if file.is_file()):
        spec = importlib.util.spec_from_file_location(file.parent.name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        exported[spec.name] = module.Mnemosyne
    return exported


def learned(exported: Any, backend: str | None = None, **options: Any) -> Make:
    """The optimizer of an exported package; None leaves the backend to it."""
    if backend is not None:
        options["backend"] = backend
    return lambda named, _: [exported(named, total_steps=100_000, **options)]


def adamw(**options: Any) -> Make:
    return lambda named, is_captured: [_adamw(named, is_captured, **options)]


def _adamw(named: Named, is_captured: bool, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([param for _, param in named], lr=1e-4, capturable=is_captured, **options)


def muon(named: Named, is_captured: bool) -> Optimizers:
    """Muon of hidden matrices, and fused AdamW of the other tensors."""
    hidden = [(name, param) for name, param in named if is_hidden(name, param.shape)]
    names = {name for name, _ in hidden}
    others = [(name, param) for name, param in named if name not in names]
    return [torch.optim.Muon([param for _, param in hidden]), _adamw(others, is_captured, fused=True)]


def is_hidden(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and not name.endswith(HIDDEN_FROM_MUON)


def step_of(optimizers: Optimizers) -> Step:
    if len(optimizers) == 1:
        return optimizers[0].step
    return lambda: [optimizer.step() for optimizer in optimizers]


# The worker: one process, which measures parts and sends rows


def send(line: str = "", **record: Any) -> None:
    """Sends a line to be printed, and what it says."""
    print(json.dumps({"line": line, **record}), flush=True)


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    device: torch.device
    is_tiny: bool
    until: float
    exported: dict[str, Any]
    """Classes by the names of cells, such as `base`."""
    failures: list[str] = field(default_factory=list)
    choices: set[str] = field(default_factory=set)
    """The lines about sizes of kernels that have been sent."""

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def compared_steps(self) -> int:
        return 8 if self.is_tiny else 30

    @property
    def warm_up(self) -> int:
        """Steps that make state and compile kernels, and are not timed."""
        return 1 if self.is_tiny else 3

    def has_time(self, name: str) -> bool:
        """Whether there is time for a row. If not, says that it is skipped."""
        if self.until - time.time() > 3:
            return True
        send(f"{name}: skipped, because no time is left", kind="skipped", name=name)
        return False

    def forms(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Make]:
        """All optimizers of a network, by name, the important ones first."""
        forms = {cell: learned(self.exported[cell]) for cell in (ELEMENTWISE, BASE)}
        if any(is_hidden(name, shape) for name, shape in shapes.items()):
            forms[MUON] = muon
        return {FUSED: adamw(fused=True), **forms, FOREACH: adamw(foreach=True)}

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def release(self) -> None:
        """Frees memory that nobody holds."""
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Reports what fails inside, and goes on, unless the device is no longer usable."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failures.append(name)
            send(f"{name}: FAILED: {type(error).__name__}: {_first_line(error)}", kind="failure", name=name)
            self.wait()
        self.release()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]


def random_tensors(shapes: Mapping[str, Shape], device: torch.device, dtype: torch.dtype) -> Named:
    """Parameters with gradients."""
    named = []
    for name, shape in shapes.items():
        param = nn.Parameter((0.02 * torch.randn(shape, device=device)).to(dtype))
        param.grad = (1e-3 * torch.randn(shape, device=device)).to(dtype)
        named.append((name, param))
    return named


def captured(step: Step, warm_up: Step | None = None, *, keep_graph: bool = False) -> torch.cuda.CUDAGraph:
    """A graph of the step, after three steps on another stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            (warm_up or step)()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph(keep_graph=keep_graph)
    with torch.cuda.graph(graph):
        step()
    return graph


# Agreement

REFUSED = 6
"""The step in which a gradient is infinite."""


class Case(NamedTuple):
    """A tensor of the comparison."""

    name: str
    shape: Shape
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    """Of the parameter."""
    gradient: str = "normal"

    @property
    def is_half(self) -> bool:
        return self.dtype != torch.float32


CASES = (
    Case("scale", ()),
    Case("one.bias", (1,)),
    Case("prime.bias", (1009,)),
    Case("empty.weight", (0, 5)),
    Case("row.weight", (1, 300)),
    Case("thin.weight", (300, 2)),
    Case("odd.weight", (127, 129)),
    Case("even.weight", (256, 256)),
    Case("edge.weight", (130, 257), gradient="strided"),
    Case("large.weight", (385, 519)),
    Case("attn.qkv.weight", (192, 64)),
    Case("experts.weight", (4, 33, 65)),
    Case("wte.weight", (211, 24), gradient="rows"),
    Case("lm_head.weight", (33, 70), gradient="strided"),
    Case("conv.weight", (8, 3, 3, 3), gradient="strided"),
    Case("conv1.weight", (16, 8, 3, 3), layout="channels_last"),
    Case("transposed.weight", (65, 140), layout="transposed"),
    Case("offset.weight", (96, 130), layout="offset"),
    Case("offset.bias", (97,), layout="offset"),
    Case("still.weight", (64, 64), gradient="zero"),
    Case("still.bias", (64,), gradient="zero"),
    Case("sometimes.weight", (48, 80), gradient="sometimes"),
    Case("sometimes.bias", (48,), gradient="sometimes"),
    Case("bfloat16.weight", (129, 70), torch.bfloat16),
    Case("bfloat16.bias", (31,), torch.bfloat16),
    Case("bfloat16.conv.weight", (16, 8, 3, 3), torch.bfloat16, layout="channels_last"),
    Case("float16.weight", (70, 129), torch.float16, gradient="strided"),
    Case("float16.bias", (31,), torch.float16),
)
"""Odd shapes, layouts and gradients. Names tell the roles."""

BOUNDS = {"float32": (1e-4, 1e-2), "tf32": (1e-2, 3e-2), "bfloat16": (5e-2, 1e-1)}
"""Largest errors of float32 parameters and of narrower ones, by the precision of products of tiles."""
NARROW_STATE = 1e-3
"""The least bound where state is in bfloat16, whose rounding falls to either side."""


def lay(values: Tensor, layout: str) -> Tensor:
    """The same values, laid out in this way."""
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout in ("transposed", "strided"):
        return values.transpose(0, 1).contiguous().transpose(0, 1) if values.dim() > 1 else values
    if layout == "offset":
        room = values.new_empty(values.numel() + 1)
        return room[1:].view(values.shape).copy_(values)
    return values.contiguous()


def gradient(case: Case, step: int, number: int) -> Tensor | None:
    """The gradient of a tensor in a step, on the CPU."""
    if case.gradient == "sometimes" and step % 2:
        return None
    values = 0.01 * torch.randn(case.shape, generator=torch.Generator().manual_seed(1000 * step + number))
    if case.gradient == "zero":
        values.zero_()
    if case.gradient == "rows":
        values[step % 3 :: 3] = 0
    if step == REFUSED and case.name == "odd.weight":
        values[3, 5] = math.inf
    return values.to(case.dtype)


class Comparison:
    """The tensors of all cases on one device, and an optimizer of them."""

    def __init__(self, exported: Any, device: torch.device, *, is_reference: bool = False, **options: Any):
        self.device = device
        self.is_reference = is_reference
        random = torch.Generator().manual_seed(0)
        self.params = []
        for case in CASES:
            values = self._own((0.1 * torch.randn(case.shape, generator=random)).to(case.dtype))
            self.params.append(nn.Parameter(lay(values, case.layout)))
        self.before = self.values()
        named = [(case.name, param) for case, param in zip(CASES, self.params, strict=True)]
        groups = [{"params": named[::2], "weight_decay": 0.1}, {"params": named[1::2], "lr": 0.5}]
        self.optimizer = exported(groups, total_steps=40, **options)

    def _own(self, values: Tensor) -> Tensor:
        is_double = self.is_reference and values.dtype == torch.float32
        return values.to(self.device, torch.float64 if is_double else values.dtype)

    def values(self) -> list[Tensor]:
        """Those of the parameters, as float64 on the CPU."""
        return [param.detach().to("cpu", torch.float64, copy=True) for param in self.params]

    @property
    def has_narrow_state(self) -> bool:
        values = [value for state in self.optimizer.state.values() for value in state.values()]
        return any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in values)

    def give(self, step: int) -> None:
        """Sets the gradients of a step, in place where there are some."""
        for number, (case, param) in enumerate(zip(CASES, self.params, strict=True)):
            values = gradient(case, step, number)
            if values is None:
                param.grad = None
            elif param.grad is None:
                param.grad = lay(self._own(values), "strided" if case.gradient == "strided" else case.layout)
            else:
                param.grad.copy_(values)

    def take(self, steps: Iterable[int]) -> None:
        for step in steps:
            self.give(step)
            self.optimizer.step()


def errors(own: Comparison, other: Comparison, *, is_half: bool) -> Iterator[tuple[float, str]]:
    """Of each tensor: its difference by the way that it has gone, or by a hundredth of its start if that is more."""
    for case, mine, theirs, start in zip(CASES, own.values(), other.values(), own.before, strict=True):
        if case.is_half == is_half:
            way = max(float((theirs - start).norm()), 0.01 * float(start.norm()), 1e-30)
            error = float((mine - theirs).norm()) / way
            yield math.inf if math.isnan(error) else error, case.name


def agreement(bench: Bench) -> None:
    """Parameters after some steps beside those on a CPU, by cell, backend and precision; and those of a graph."""
    send("\nagreement: the largest errors of float32 parameters and of narrower ones, with their bounds")
    for cell in (ELEMENTWISE, BASE):
        reference = reference_of(bench, cell)
        for backend in backends(bench):
            for precision in ("float32",) if cell == ELEMENTWISE else BOUNDS:
                compare(bench, cell, reference, precision, backend)
    for cell in (ELEMENTWISE, BASE) if bench.is_gpu else ():
        with bench.attempt(f"agreement of {cell}, in a graph"):
            compare_graph(bench, cell)


def reference_of(bench: Bench, cell: str) -> Comparison:
    """The steps on a CPU."""
    reference = Comparison(bench.exported[cell], torch.device("cpu"), is_reference=True)
    reference.take(range(bench.compared_steps))
    return reference


def compare(bench: Bench, cell: str, reference: Comparison, precision: str, backend: str | None = None) -> None:
    """Reports how far the steps on the device are from those on a CPU."""
    name = form_name(cell, backend, precision)
    options: dict[str, Any] = {} if backend is None else {"backend": backend}
    with bench.attempt(f"agreement of {name}"):
        own = Comparison(bench.exported[cell], bench.device, precision=precision, **options)
        own.take(range(REFUSED))
        check_refused(own)
        own.take(range(REFUSED + 1, bench.compared_steps))
        report_errors(name, own, reference, precision)


def backends(bench: Bench) -> tuple[str | None, ...]:
    """The optimizer's own choice, and what can be asked for on this device."""
    has_triton = bench.is_gpu or os.environ.get("TRITON_INTERPRET") == "1"
    return (None, "triton", "torch") if has_triton else (None, "torch")


def form_name(cell: str, *options: str | None) -> str:
    return ", ".join([cell, *(option for option in options if option)])


def check_refused(own: Comparison) -> None:
    """Takes the step whose gradient is infinite, which must change nothing."""
    before = own.values()
    own.take([REFUSED])
    changed = [
        case.name for case, old, new in zip(CASES, before, own.values(), strict=True) if not torch.equal(old, new)
    ]
    if changed or own.optimizer.skipped_steps != 1:
        raise AssertionError(
            f"a step with an infinite gradient changed {', '.join(changed) or 'nothing'}, and skipped_steps is "
            f"{own.optimizer.skipped_steps}"
        )


def report_errors(name: str, own: Comparison, other: Comparison, precision: str) -> None:
    worst = [max(errors(own, other, is_half=is_half)) for is_half in (False, True)]
    bounds = [max(bound, NARROW_STATE) if own.has_narrow_state else bound for bound in BOUNDS[precision]]
    agrees = all(error <= bound for (error, _), bound in zip(worst, bounds, strict=True))
    texts = [f"{error:.1e} of {bound:.0e} ({at})" for (error, at), bound in zip(worst, bounds, strict=True)]
    send(
        f"{name:<30} {'agrees' if agrees else 'DIFFERS':<8} {texts[0]:<36} {texts[1]}",
        kind="agreement",
        name=name,
        agrees=agrees,
        error=worst[0][0],
        narrow_error=worst[1][0],
        bounds=bounds,
    )


def compare_graph(bench: Bench, cell: str) -> None:
    """Replays of a captured step beside the same steps in a loop. Every tensor has a gradient in even steps."""
    steps = range(0, bench.compared_steps, 2)
    plain, own = (Comparison(bench.exported[cell], bench.device) for _ in range(2))
    plain.take(steps)
    rest = iter(steps)
    graph = captured(own.optimizer.step, lambda: own.take([next(rest)]))
    for step in rest:
        own.give(step)
        graph.replay()
    bench.wait()
    report_errors(f"{cell}, in a graph", own, plain, "float32")
    if own.optimizer.skipped_steps != 1:
        raise AssertionError(f"skipped_steps is {own.optimizer.skipped_steps} after replays, and 1 step was refused")


# Times


class Span(NamedTuple):
    """Milliseconds per step."""

    all: float
    host: float


def span(bench: Bench, step: Step, count: int) -> Span:
    """Of so many steps in a loop."""
    if not bench.is_gpu:
        began = time.perf_counter()
        for _ in range(count):
            step()
        milliseconds = 1e3 * (time.perf_counter() - began) / count
        return Span(milliseconds, milliseconds)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    began = time.perf_counter()
    for _ in range(count):
        step()
    host = time.perf_counter() - began
    end.record()
    end.synchronize()
    return Span(start.elapsed_time(end) / count, 1e3 * host / count)


class Timing(NamedTuple):
    """Medians over turns."""

    ms: float
    host_ms: float
    ratio: float
    """To the other's step."""


def in_turn(bench: Bench, step: Step, other: Step) -> Timing:
    """Times two steps in turns."""
    length, most, seconds = (1.0, 2, 0.1) if bench.is_tiny else (20.0, 11, 1.0)
    firsts = [span(bench, each, 2).all for each in (step, other)]
    counts = [min(max(round(length / first), 1), 100) for first in firsts]
    turn = sum(first * count for first, count in zip(firsts, counts, strict=True)) / 1e3
    turns = min(max(round(seconds / turn), 2 if bench.is_tiny else 3), most)
    pairs = [(span(bench, step, counts[0]), span(bench, other, counts[1])) for _ in range(turns)]
    return Timing(
        statistics.median(mine.all for mine, _ in pairs),
        statistics.median(mine.host for mine, _ in pairs),
        statistics.median(mine.all / theirs.all for mine, theirs in pairs),
    )


class Ready(NamedTuple):
    """A form that has taken its first steps."""

    optimizers: Optimizers
    """They hold the state, which a graph does not."""
    step: Step


def ready(bench: Bench, make: Make, named: Named, *, is_captured: bool) -> Ready:
    optimizers = make(named, is_captured)
    step = step_of(optimizers)
    if is_captured:
        return Ready(optimizers, captured(step).replay)
    for _ in range(bench.warm_up):
        step()
    bench.wait()
    return Ready(optimizers, step)


def time_network(
    bench: Bench, network: str, make_forms: Callable[..., dict[str, Make]], dtype: torch.dtype = torch.float32
) -> None:
    """The tables of a network, in a loop and in a graph: a row per form."""
    shapes = networks(is_tiny=bench.is_tiny)[network]
    named = random_tensors(shapes, bench.device, dtype)
    count = sum(param.numel() for _, param in named)
    text = str(dtype).removeprefix("torch.")
    send(f"\n{network}, {text}: {count:,} parameters in {len(named)} tensors")
    # A capture that fails may leave the allocator in a bad state, so graphs come last.
    for is_graph in (False, True) if bench.is_gpu else (False,):
        send(f"{'in a graph' if is_graph else 'back to back':<22} {'ms':>9} {'/ AdamW':>8} {'host ms':>9}")
        labels = {"network": network, "dtype": text, "is_graph": is_graph}
        baseline = ready(bench, adamw(fused=True), named, is_captured=is_graph)
        for form, make in make_forms(bench, shapes).items():
            name = f"{form}, {network}, {text}{', graph' if is_graph else ''}"
            if bench.has_time(name):
                with bench.attempt(name):
                    time_form(bench, form, make, named, baseline, labels)
        del baseline
        bench.release()


def time_form(bench: Bench, form: str, make: Make, named: Named, baseline: Ready, labels: Record) -> None:
    own = ready(bench, make, named, is_captured=labels["is_graph"])
    timing = in_turn(bench, own.step, baseline.step)
    send(
        f"{form:<22} {timing.ms:>9.3f} {timing.ratio:>8.2f} {timing.host_ms:>9.3f}",
        kind="time",
        form=form,
        **labels,
        **timing._asdict(),
    )
    for kernel, options in tuning(own.optimizers[0]).items():
        line = f"{form}: {kernel} with {options}"
        if line not in bench.choices:
            bench.choices.add(line)
            send(f"{'':<22} {line}", kind="tuning", form=form, kernel=str(kernel), options=str(options))


def tuning(optimizer: torch.optim.Optimizer) -> Mapping[Any, Any]:
    """The sizes that an exported optimizer has chosen for its kernels, if it has some."""
    package = type(optimizer).__module__.rpartition(".")[0]
    return getattr(sys.modules.get(f"{package}._tuning"), "choices", {})


def bfloat16_networks(bench: Bench) -> None:
    """Parameters and gradients in bfloat16; the state of AdamW too, and ours in float32."""
    for network in (VIT_B, VIT_H):
        time_network(bench, network, Bench.forms, torch.bfloat16)


def explicit_backends(bench: Bench) -> None:
    """Forms with a backend that was asked for, beside those that the optimizer chose."""
    for network in (VIT_B, VIT_H):
        time_network(bench, network, _backend_forms)


def _backend_forms(bench: Bench, _: Any) -> dict[str, Make]:
    return {
        form_name(cell, backend): learned(bench.exported[cell], backend)
        for backend in backends(bench)
        if backend is not None
        for cell in (ELEMENTWISE, BASE)
    }


def other_packages(bench: Bench) -> None:
    """Packages in the folder that no other part runs, such as one with smaller tiles."""
    others = _other_forms(bench, None)
    send(f"\nother packages: {', '.join(others) or 'none'}")
    for cell in others:
        compare(bench, cell, reference_of(bench, cell), "float32")
    for network in (VIT_B, VIT_H) if others else ():
        time_network(bench, network, _other_forms)


def _other_forms(bench: Bench, _: Any) -> dict[str, Make]:
    return {cell: learned(exported) for cell, exported in bench.exported.items() if cell not in (ELEMENTWISE, BASE)}


# Launches and memory


def launches(bench: Bench) -> None:
    """Kernels of one step over 150 and 1,500 tensors."""
    counts = (15, 30) if bench.is_tiny else (150, 1500)
    send(f"\nlaunches per step (and copies), over {counts[0]} and {counts[1]:,} tensors")
    for form in (ELEMENTWISE, BASE, FUSED, FOREACH, MUON):
        with bench.attempt(f"{form}, launches"):
            found = []
            for count in counts:
                shapes = small_tensors(count, 16)
                named = random_tensors(shapes, bench.device, torch.float32)
                found.append(launched(bench, bench.forms(shapes)[form], named))
            text = "  ".join(f"{kernels:>7,} ({copies})" for kernels, copies in found)
            kernels, copies = zip(*found, strict=True)
            send(f"{form:<22} {text}", kind="launches", form=form, kernels=kernels, copies=copies)


def launched(bench: Bench, make: Make, named: Named) -> tuple[int, int]:
    """Kernels, and copies and fills, of one step. On a CPU the operators of torch stand for kernels."""
    step = ready(bench, make, named, is_captured=False).step
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.is_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    kinds: collections.Counter[str] = collections.Counter()
    # The profiler may miss the first kernels that it sees.
    for _ in range(2):
        with torch.profiler.profile(activities=activities) as profile:
            step()
            bench.wait()
        kinds = trace_kinds(profile)
    if not bench.is_gpu:
        return kinds["cpu_op"], 0
    if not kinds["kernel"]:
        kinds = graph_kinds(step_of(make(named, True)))
    return kinds["kernel"], kinds["gpu_memcpy"] + kinds["gpu_memset"]


def trace_kinds(profile: torch.profiler.profile) -> collections.Counter[str]:
    """How many events of each category a profile has."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8", errors="replace"), strict=False)["traceEvents"]
    return collections.Counter(event.get("cat", "") for event in events)


def graph_kinds(step: Step) -> collections.Counter[str]:
    """How many nodes of each kind a graph of the step has, asked of the driver."""
    graph = captured(step, keep_graph=True)
    driver = ctypes.CDLL("libcuda.so.1")
    handle, count = ctypes.c_void_p(graph.raw_cuda_graph()), ctypes.c_size_t()
    _check(driver.cuGraphGetNodes(handle, None, ctypes.byref(count)))
    nodes = (ctypes.c_void_p * count.value)()
    _check(driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count)))
    names = {0: "kernel", 1: "gpu_memcpy", 2: "gpu_memset"}
    kinds: collections.Counter[str] = collections.Counter()
    for node in nodes:
        kind = ctypes.c_int()
        _check(driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
        kinds[names.get(kind.value, "other")] += 1
    return kinds


def _check(result: int) -> None:
    if result:
        raise RuntimeError(f"the driver answers {result} to a question about a graph")


def memory(bench: Bench) -> None:
    """The peak during three steps beyond parameters, gradients and state."""
    send(f"\nextra memory during steps, MiB, and state\n{'':<22} {VIT_B:>20} {VIT_H:>20}")
    for form in (ELEMENTWISE, BASE, FUSED, FOREACH, MUON):
        texts = []
        for network in (VIT_B, VIT_H):
            with bench.attempt(f"{form}, memory of {network}"):
                extra, state = extra_memory(bench, form, network)
                send(kind="memory", form=form, network=network, extra_mib=extra, state_mib=state)
                texts.append(f"{'-' if extra is None else f'{extra:.1f}'} ({state:.0f})")
        send(f"{form:<22} " + " ".join(f"{text:>20}" for text in texts))


def extra_memory(bench: Bench, form: str, network: str) -> tuple[float | None, float]:
    """MiB beyond what must be there, where the device counts them, and MiB of state."""
    shapes = networks(is_tiny=bench.is_tiny)[network]
    before = torch.cuda.memory_allocated() if bench.is_gpu else 0
    named = random_tensors(shapes, bench.device, torch.float32)
    optimizers = bench.forms(shapes)[form](named, False)
    bench.release()
    if bench.is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step_of(optimizers)()
    bench.wait()
    values = [value for each in optimizers for state in each.state.values() for value in state.values()]
    state = sum(value.nbytes for value in values if isinstance(value, Tensor) and value.device.type != "cpu")
    if not bench.is_gpu:
        return None, sum(value.nbytes for value in values if isinstance(value, Tensor)) / MIB
    needed = 2 * sum(param.nbytes for _, param in named) + state
    return (torch.cuda.max_memory_allocated() - before - needed) / MIB, state / MIB


# A whole training step


def training(bench: Bench) -> None:
    """The optimizer's share of a training step of a Vision Transformer, with activations in bfloat16."""
    sizes = (32, 1, 2, 16, 10, 32) if bench.is_tiny else (768, 12, 12, 16, 1000, 224)
    batch = 2 if bench.is_tiny else 128
    with bench.device:
        model = VisionTransformer(*sizes)
        images, labels = torch.randn(batch, 3, sizes[-1], sizes[-1]), torch.randint(sizes[-2], (batch,))
    named = list(model.named_parameters())
    send(f"\ntraining step of {VIT_B}, {batch} images\n{'':<22} {'ms':>9} {'optimizer':>10} {'share':>7}")

    def passes() -> None:
        model.zero_grad()
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()

    for form, make in bench.forms({name: param.shape for name, param in named}).items():
        name = f"{form}, training"
        if not bench.has_time(name):
            continue
        with bench.attempt(name):
            whole, own = training_times(bench, passes, step_of(make(named, False)))
            send(
                f"{form:<22} {whole:>9.2f} {own:>10.3f} {own / whole:>7.1%}",
                kind="training",
                form=form,
                ms=whole,
                optimizer_ms=own,
                share=own / whole,
            )


def training_times(bench: Bench, passes: Step, step: Step) -> tuple[float, float]:
    """Median milliseconds of a training step and of the optimizer's, in a loop that waits only at its end."""
    clocks = []
    for _ in range(bench.warm_up + (2 if bench.is_tiny else 15)):
        clocks.append(mark(bench))
        passes()
        clocks.append(mark(bench))
        step()
    clocks.append(mark(bench))
    bench.wait()
    skipped = 2 * bench.warm_up
    starts, middles, ends = (clocks[skipped + place :: 2] for place in range(3))
    rows = list(zip(starts, middles, ends, strict=False))
    whole = statistics.median(elapsed(start, end) for start, _, end in rows)
    return whole, statistics.median(elapsed(middle, end) for _, middle, end in rows)


def mark(bench: Bench) -> Any:
    """A point in time: an event of the device, or seconds of the CPU."""
    if not bench.is_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def elapsed(start: Any, end: Any) -> float:
    """Milliseconds between two points in time."""
    return 1e3 * (end - start) if isinstance(start, float) else start.elapsed_time(end)


# Optax, where there is JAX


def optax_step(bench: Bench) -> None:
    """What XLA makes of a step, if the checkout and JAX are there."""
    script = pathlib.Path(__file__).with_name("_optax_step.py")
    if not (bench.is_gpu and script.is_file() and importlib.util.find_spec("jax")):
        send("\noptax: left out, because it needs a GPU, JAX and the checkout")
        return
    send("\noptax")
    command = [sys.executable, "-m", f"{script.parent.name}.{script.stem}"]
    ran = subprocess.run(
        command,
        cwd=script.parents[1],
        # JAX would take most of the device's memory at once.
        env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        capture_output=True,
        text=True,
        timeout=max(bench.until - time.time(), 1),
    )
    for line in ran.stdout.splitlines():
        send(line, kind="optax")
    reason = (ran.stderr.strip() or "it says nothing").splitlines()[-1]
    if ran.returncode and "ModuleNotFoundError" in reason:
        send(f"left out, because something that it needs is not installed: {reason}")
    elif ran.returncode:
        raise RuntimeError(reason)


# Parts


def ceilings(bench: Bench) -> None:
    """What the device can do at most: bytes moved and operations of matrix products in bfloat16, per second."""
    size = 256 if bench.is_tiny else 8192
    source, target = (torch.randn(size * size, device=bench.device) for _ in range(2))
    factor = torch.randn(size, size, device=bench.device, dtype=torch.bfloat16)
    copy, product = (
        statistics.median(span(bench, step, 10).all for _ in range(3))
        for step in (lambda: target.copy_(source), lambda: factor @ factor)
    )
    moved, operations = 2e-9 * source.nbytes / copy, 2e-9 * size**3 / product
    send(
        f"copies move {moved:.2f} TB/s, and products in bfloat16 take {operations:.0f} TFLOP/s",
        kind="ceilings",
        copy_tb_per_second=moved,
        product_tflop_per_second=operations,
    )


def _network(name: str) -> Callable[[Bench], None]:
    return lambda bench: time_network(bench, name, Bench.forms)


PARTS: dict[str, Callable[[Bench], None]] = {
    "ceilings": ceilings,
    "agreement": agreement,
    "vit-b": _network(VIT_B),
    "vit-h": _network(VIT_H),
    "launches": launches,
    "memory": memory,
    "training": training,
    "bfloat16": bfloat16_networks,
    "gpt-2": _network(GPT_2),
    "prompt": _network(PROMPT),
    "tiny-tensors": _network(TINY_TENSORS),
    "backends": explicit_backends,
    "packages": other_packages,
    "optax": optax_step,
}
"""In order of importance."""


def work(arguments: argparse.Namespace) -> None:
    """Runs parts in this process, until one leaves it worse than it was."""
    warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
    torch.manual_seed(0)
    exported = {name.removeprefix("mnemosyne_"): each for name, each in load_exported(arguments.exports).items()}
    bench = Bench(torch.device(arguments.device), arguments.tiny, arguments.until, exported)
    for part in arguments.worker:
        began = time.time()
        # Collections of garbage then skip all that is there now, such as the modules of torch.
        gc.freeze()
        send(kind="begins", part=part)
        with bench.attempt(part):
            PARTS[part](bench)
        send(kind="ends", part=part, seconds=time.time() - began)
        # The profiler of a GPU slows down what comes after it.
        if bench.failures or (part == "launches" and bench.is_gpu):
            return


# The parent: it starts workers, prints their rows, and keeps them


Values = tuple[float | None, ...]
"""Back to back, and in a graph; a figure without the two is the first."""


class Figure(NamedTuple):
    """What is measured, and what it must reach."""

    name: str
    at_least: float
    aim: float
    values: Callable[[list[Record]], Values]
    text: str = "{:.2f}"

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "-"
        met = "aim" if value <= self.aim else "yes" if value <= self.at_least else "NO"
        return f"{'varies' if value == math.inf else self.text.format(value)} {met}"


def find(records: list[Record], **labels: Any) -> Record:
    """The record with these labels, or an empty one."""
    return next((each for each in records if labels.items() <= each.items()), {})


def to_adamw(form: str, network: str, dtype: str = "float32") -> Callable[[list[Record]], Values]:
    def values(records: list[Record]) -> Values:
        labels = {"kind": "time", "form": form, "network": network, "dtype": dtype}
        return tuple(find(records, **labels, is_graph=is_graph).get("ratio") for is_graph in (False, True))

    return values


def to_muon(network: str) -> Callable[[list[Record]], Values]:
    def values(records: list[Record]) -> Values:
        labels = {"kind": "time", "network": network, "dtype": "float32"}
        pairs = [
            [find(records, **labels, form=form, is_graph=is_graph).get("ms") for form in (BASE, MUON)]
            for is_graph in (False, True)
        ]
        return tuple(own / other if own and other else None for own, other in pairs)

    return values


def share(records: list[Record]) -> Values:
    return find(records, kind="training", form=BASE).get("share"), None


def launches_of(form: str) -> Callable[[list[Record]], Values]:
    """The number of launches, or infinity if it depends on the number of tensors."""

    def values(records: list[Record]) -> Values:
        kernels = find(records, kind="launches", form=form).get("kernels")
        if kernels is None:
            return None, None
        return kernels[0] if len(set(kernels)) == 1 else math.inf, None

    return values


def extra_of(network: str) -> Callable[[list[Record]], Values]:
    return lambda records: (find(records, kind="memory", form=ELEMENTWISE, network=network).get("extra_mib"), None)


FIGURES = (
    Figure(f"{ELEMENTWISE} / fused AdamW, float32, {VIT_H}", 1.6, 1.2, to_adamw(ELEMENTWISE, VIT_H)),
    Figure(f"{ELEMENTWISE} / fused AdamW, float32, {VIT_B}", 2, 1.4, to_adamw(ELEMENTWISE, VIT_B)),
    Figure(f"{ELEMENTWISE} / fused AdamW, bfloat16, {VIT_H}", 2.5, 1.6, to_adamw(ELEMENTWISE, VIT_H, "bfloat16")),
    Figure(f"{ELEMENTWISE} / fused AdamW, bfloat16, {VIT_B}", 2.5, 1.6, to_adamw(ELEMENTWISE, VIT_B, "bfloat16")),
    Figure(f"{BASE} / fused AdamW, {VIT_B}", 4, 1.5, to_adamw(BASE, VIT_B)),
    Figure(f"{BASE} / fused AdamW, {VIT_H}", 4, 1.5, to_adamw(BASE, VIT_H)),
    Figure(f"{BASE} / torch.optim.Muon, {VIT_B}", 0.10, 0.04, to_muon(VIT_B), "{:.3f}"),
    Figure(f"{BASE} / torch.optim.Muon, {VIT_H}", 0.25, 0.10, to_muon(VIT_H), "{:.3f}"),
    Figure(f"{BASE}, share of a training step of {VIT_B}", 0.08, 0.04, share, "{:.1%}"),
    Figure(f"{ELEMENTWISE}, launches, the same over 150 and 1,500 tensors", 40, 15, launches_of(ELEMENTWISE), "{:.0f}"),
    Figure(f"{BASE}, launches, the same over 150 and 1,500 tensors", 40, 15, launches_of(BASE), "{:.0f}"),
    Figure(f"{ELEMENTWISE}, extra memory in MiB, {VIT_B}", 64, 32, extra_of(VIT_B), "{:.1f}"),
    Figure(f"{ELEMENTWISE}, extra memory in MiB, {VIT_H}", 64, 32, extra_of(VIT_H), "{:.1f}"),
)


class Report:
    """The records so far. Each is printed and written as it comes."""

    def __init__(self, out: pathlib.Path | None, **labels: Any):
        self.out = out
        self.labels = labels
        self.records: list[Record] = []

    def add(self, record: Record) -> None:
        line = record.pop("line", "")
        if line:
            print(line, flush=True)
        if record:
            self.records.append(record)
            self.write()

    def note(self, kind: str, name: str, line: str) -> None:
        self.add({"line": line, "kind": kind, "name": name})

    def write(self) -> None:
        if self.out is None:
            return
        figures = [
            dict(zip(("name", "at_least", "aim", "back_to_back", "graph"), row, strict=True))
            for row in ((each.name, each.at_least, each.aim, *each.values(self.records)) for each in FIGURES)
        ]
        text = json.dumps({**self.labels, "figures": figures, "records": self.records}, indent=1)
        beside = self.out.with_name(f"{self.out.name}.part")
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(self.out)

    def table(self) -> None:
        """Prints the figures beside what they must reach."""
        print(f"\n{'figure':<62} {'back to back':>13} {'graph':>10} {'at least':>9} {'aim':>6}")
        for each in FIGURES:
            plain, graph = (each.verdict(value) for value in each.values(self.records))
            bounds = (
                f"{each.at_least:>9.0%} {each.aim:>6.0%}" if "%" in each.text else f"{each.at_least:>9g} {each.aim:>6g}"
            )
            print(f"{each.name:<62} {plain:>13} {graph:>10} {bounds}")
        for kind, title in (("failure", "failed"), ("skipped", "skipped")):
            names = [each["name"] for each in self.records if each.get("kind") == kind]
            if names:
                print(f"{title}: {'; '.join(names)}")
        seconds = [f"{each['part']} {each['seconds']:.0f}" for each in self.records if each.get("kind") == "ends"]
        if seconds:
            print(f"seconds: {', '.join(seconds)}")
        differing = [each["name"] for each in self.records if each.get("kind") == "agreement" and not each["agrees"]]
        if differing:
            print(f"beyond the bounds of agreement: {'; '.join(differing)}")

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed, and all that was compared agrees."""
        return all(each.get("kind") != "failure" and each.get("agrees", True) for each in self.records)


def supervise(parts: list[str], arguments: argparse.Namespace, until: float, report: Report) -> None:
    """Runs parts in processes until the time is over."""
    while parts:
        if until - time.time() < 2:
            report.note("skipped", ", ".join(parts), f"\nskipped, because no time is left: {', '.join(parts)}")
            return
        parts = run_worker(parts, arguments, until, report)


def run_worker(parts: list[str], arguments: argparse.Namespace, until: float, report: Report) -> list[str]:
    """Runs parts in one process, and returns those that it did not come to."""
    command = [sys.executable, __file__, "--exports", str(arguments.exports), "--device", arguments.device]
    command += [*(["--tiny"] if arguments.tiny else []), "--until", str(until), "--worker", *parts]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = lines_of(process)
    waiting, limit = list(parts), until
    try:
        while waiting:
            line = lines.get(timeout=max(limit - time.time(), 0))
            if line is None:
                code = process.wait()
                if code or waiting == parts:
                    part = waiting.pop(0)
                    report.note("failure", part, f"{part}: FAILED: its process ended with exit code {code}")
                break
            record = record_of(line)
            if record.get("kind") == "begins":
                # One part may take half of the time that is left, and the last one all of it.
                limit = until if len(waiting) == 1 else (time.time() + until) / 2
                continue
            report.add(record)
            if record.get("kind") == "ends":
                waiting.remove(record["part"])
                limit = until
    except queue.Empty:
        part = waiting.pop(0)
        kind = "failure" if limit < until else "skipped"
        report.note(kind, part, f"{part}: stopped, because it took too long")
    finally:
        process.kill()
        process.wait()
    return waiting


def lines_of(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What a process prints, line by line, and None at its end."""
    lines: queue.Queue[str | None] = queue.Queue()
    output = process.stdout
    assert output is not None

    def read() -> None:
        for line in output:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def record_of(line: str) -> Record:
    """What a worker sent, or what something else in it printed."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"line": line.rstrip()}


def described(device: str) -> Record:
    """The machine."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = None
    return {"device": name, "torch": torch.__version__, "triton": triton, "python": sys.version.split()[0]}


def main() -> None:
    """Prints tables, and exits with 1 if anything failed or disagreed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument(
        "--exports", type=pathlib.Path, default=pathlib.Path("build/torch"), help="a folder of packages"
    )
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all rows")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all by default")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, which a CPU can do")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    until = time.time() + 60 * arguments.minutes
    check(arguments)
    labels = described(arguments.device)
    print(", ".join(f"{key} {value}" for key, value in labels.items()), flush=True)
    if arguments.tiny:
        print("tiny sizes: the figures say nothing", flush=True)
    report = Report(arguments.out, **labels, tiny=arguments.tiny)
    supervise(arguments.parts, arguments, until, report)
    report.table()
    raise SystemExit(not report.is_sound)


def check(arguments: argparse.Namespace) -> None:
    """Exits with a sentence if nothing can be measured."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; pass --device cpu --tiny to run every part at tiny sizes")
    if arguments.device == "cpu" and not arguments.tiny:
        raise SystemExit("a CPU is too slow for these sizes; pass --tiny as well")
    if arguments.out is not None and not arguments.out.parent.is_dir():
        raise SystemExit(f"the folder of --out {arguments.out} does not exist; make it first")
    missing = [
        name
        for name in (f"mnemosyne_{ELEMENTWISE}", f"mnemosyne_{BASE}")
        if not (arguments.exports / name / "__init__.py").is_file()
    ]
    if missing:
        raise SystemExit(
            f"{arguments.exports} lacks {' and '.join(missing)}; make them with: mnemo export "
            f"{missing[0].replace('_', '-')} --target torch --out build"
        )


if __name__ == "__main__":
    main()
