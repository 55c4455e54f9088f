"""The torch target: a package with a `torch.optim.Optimizer`, and the phases as plain torch code."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .._verify import AbstractArtifact, AbstractRollout
from ..artifact import FrozenCell
from ..errors import MissingExtraError
from ..program import COMMUTATIVE, CompiledCell, Equation, Literal
from ._package import load_package, package_name, phases_source, write_package
from ._protocol import AbstractExporter
from ._source import bare, infix, Renderer, sizes

_EXAMPLE = """\
optimizer = Mnemosyne(model.parameters(), total_steps=1000)
for batch in batches:
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()
"""


class TorchExporter(AbstractExporter):
    """Writes `<name>/` with the class `Mnemosyne`."""

    @property
    def name(self) -> str:
        return "torch"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        write_package(
            frozen,
            compiled,
            folder,
            target=self.name,
            public="Mnemosyne",
            phases=self.text(frozen, compiled),
            requires=("torch", "safetensors", "numpy"),
            example=_EXAMPLE,
        )

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        imports = "import torch\nfrom torch import Tensor"
        return phases_source(frozen, compiled, _TABLE, self.name, imports=imports, array="Tensor")

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractArtifact:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise MissingExtraError("torch", "torch") from None
        return _Artifact(load_package(folder / package_name(frozen)))


class _Artifact(AbstractArtifact):
    def __init__(self, package: ModuleType):
        import torch

        self.torch = torch
        self.package = package
        optimizer = package._optimizer
        self.phases = optimizer._phases
        self.weights = optimizer._weights(torch.device("cpu"), torch.float32)

    def phase(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {key: self.torch.tensor(inputs[key]) for key in self.phases.INPUTS[name]}
        with _one_thread():
            return {key: value.numpy() for key, value in getattr(self.phases, name)(self.weights, given).items()}

    def start(
        self, params: Sequence[np.ndarray], *, lr: float, weight_decay: float, total_steps: int
    ) -> AbstractRollout:
        tensors = [self.torch.nn.Parameter(self.torch.tensor(value)) for value in params]
        optimizer = self.package.Mnemosyne(tensors, lr=lr, weight_decay=weight_decay, total_steps=total_steps)
        return _Rollout(tensors, optimizer)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Verification's tensors are small: handing them to threads that other work holds up costs more than it saves."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Rollout(AbstractRollout):
    def __init__(self, tensors: list[Any], optimizer: Any):
        self.tensors = tensors
        self.optimizer = optimizer

    def step(self, grads: Sequence[np.ndarray]) -> list[np.ndarray]:
        for tensor, grad in zip(self.tensors, grads, strict=True):
            tensor.grad = tensor.new_tensor(grad)
        with _one_thread():
            self.optimizer.step()
        return [tensor.detach().numpy().copy() for tensor in self.tensors]


def _call(function: str) -> Renderer:
    return lambda equation, inputs, spare: f"torch.{function}({', '.join(inputs)})"


def _unary(function: str) -> Renderer:
    def text(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
        return f"{inputs[0]}.{function}_()" if spare[0] else f"torch.{function}({inputs[0]})"

    return text


def _arithmetic(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    """In place where an operand is not needed again: a third of the memory is not touched."""
    left, right = inputs
    if spare[0]:
        return f"{left}.{equation.primitive}_({bare(right)})"
    if spare[1] and equation.primitive in COMMUTATIVE:
        return f"{right}.{equation.primitive}_({bare(left)})"
    return infix(equation, inputs, spare)


def _extreme(function: str, bound: str) -> Renderer:
    def text(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
        if isinstance(equation.inputs[1], Literal):
            if spare[0]:
                return f"{inputs[0]}.clamp_({bound}={inputs[1]})"
            return f"torch.clamp({inputs[0]}, {bound}={inputs[1]})"
        return f"torch.{function}({', '.join(inputs)})"

    return text


def _broadcast(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    shape = sizes(equation.output.shape, "rows")
    if isinstance(equation.inputs[0], Literal):
        return f"next(iter(inputs.values())).new_full({shape}, {inputs[0]}, dtype=torch.{equation.output.dtype})"
    return f"{inputs[0]}.expand{shape}"


def _slice(equation: Equation, inputs: list[str], spare: list[bool]) -> str:
    axis, start, stop = (equation.params[key] for key in ("axis", "start", "stop"))
    return f"{inputs[0]}[{':, ' * axis}{start}:{stop}]"


_TABLE: dict[str, Renderer] = {
    **{name: _unary(name) for name in ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "tanh", "cos")},
    **{name: _arithmetic for name in ("add", "sub", "mul", "div")},
    "gt": infix,
    "max": _extreme("maximum", "min"),
    "min": _extreme("minimum", "max"),
    "select": _call("where"),
    "convert": lambda equation, inputs, spare: f"{inputs[0]}.to(torch.{equation.params['dtype']})",
    "sum": lambda equation, inputs, spare: f"torch.sum({inputs[0]}, dim={equation.params['axes']})",
    "reshape": lambda equation, inputs, spare: f"{inputs[0]}.reshape{sizes(equation.output.shape, '-1')}",
    "broadcast": _broadcast,
    "transpose": lambda equation, inputs, spare: f"{inputs[0]}.permute({equation.params['permutation']})",
    "concatenate": lambda equation, inputs, spare: f"torch.cat([{', '.join(inputs)}], dim={equation.params['axis']})",
    "slice": _slice,
    "einsum": lambda equation, inputs, spare: f'torch.einsum("{equation.params["subscripts"]}", {", ".join(inputs)})',
}
"""Each primitive of the closed set as a torch expression."""
