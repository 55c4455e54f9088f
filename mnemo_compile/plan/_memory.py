"""Runs a forward and a backward pass on tensors without numbers, and counts what is alive."""

from typing import Any, get_args, Literal, NamedTuple, TYPE_CHECKING

from ..errors import MnemoError
from ._inputs import batch_of, text_length
from ._models import build, Subject

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "mixed", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
"""`mixed` has float32 weights, and products in bfloat16 (torch.autocast)."""


class Setting(NamedTuple):
    """How a model is trained on one device."""

    batch: int = 8
    """Examples per device and pass."""
    length: int | None = None
    """Symbols of a text, and of its labels. None takes 512, or what the model reads at most."""
    dtype: Dtype = "float32"
    checkpointing: bool = False
    """Whether activations of a block are computed again in the backward pass."""
    virtual_tokens: int = 20
    """Length of a soft prompt."""


class Memory(NamedTuple):
    """Bytes of a step on one device that holds everything, without what the optimizer takes."""

    weights: int
    """All parameters and buffers."""
    gradients: int
    """Those of the parameters that are trained."""
    activations: int
    """What is alive at the end of the forward pass, for the backward pass and as its result."""
    passes: int
    """The highest total of weights, gradients and activations during both passes: gradients come while activations
    go."""
    largest_block: int
    """Weights of the largest part that `fully_shard` gathers at once."""
    trained: dict[str, tuple[int, ...]]
    """Shapes of the trained parameters, by name."""
    trained_bytes: int
    """Bytes of one number of a trained parameter."""
    parameters: int
    """Numbers of all parameters."""


def step_memory(subject: Subject, setting: Setting) -> Memory:
    """Counts a forward and a backward pass.

    Tensors are those of a CPU without numbers (`FakeTensorMode`), so that torch chooses kernels, dtypes and what it
    saves for the backward pass as in a real step.

    **Arguments:**

    - `subject`: the model and what is trained of it.
    - `setting`: batch, length and dtype.

    Raises `MnemoError` for a model that cannot run without numbers.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from ._live import LiveBytes

    model = build(subject, virtual_tokens=setting.virtual_tokens, checkpointing=setting.checkpointing).train()
    if setting.dtype == "bfloat16":
        model.to(torch.bfloat16)
    length = length_of(subject, setting)
    live = LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):
        _materialise(model)
        for tensor in [*model.parameters(), *model.buffers()]:
            live.add(tensor)
        weights = live.now
        inputs = batch_of(subject.config, setting.batch, length, is_labelled_once="Classification" in subject.head.auto)
        if setting.dtype == "bfloat16":
            inputs = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
        with live:
            activations = _run(subject, model, inputs, live, setting.dtype == "mixed") - weights
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    return Memory(
        weights=weights,
        gradients=sum(param.nbytes for param in trained.values()),
        activations=activations,
        passes=live.peak,
        largest_block=_largest_block(model),
        trained={name: tuple(param.shape) for name, param in trained.items()},
        trained_bytes=max((param.itemsize for param in trained.values()), default=0),
        parameters=sum(param.numel() for param in model.parameters()),
    )


def length_of(subject: Subject, setting: Setting) -> int:
    """Symbols of a text without its prompt, 0 for a model of images. Raises `UsageError` if it cannot read so many."""
    if subject.head.auto == "AutoModelForImageClassification":
        return 0
    prompt = 0 if subject.head.prompt is None else setting.virtual_tokens
    return text_length(subject.name, subject.config, setting.length, prompt)


def _run(subject: Subject, model: Any, inputs: Any, live: Any, is_mixed: bool) -> int:
    """Both passes. Returns what is alive between them."""
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    try:
        for value in inputs.values():
            live.add(value)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            loss = model(**inputs).loss
        between = live.now
        loss.backward()
        return between
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise MnemoError(
            f"what {subject.name} computes depends on numbers ({error.func}), so a step cannot be counted without "
            "them; plan a model of the same size and another kind"
        ) from None


def _materialise(model: "torch.nn.Module") -> None:
    """Puts tensors of a CPU in the place of those on meta. What was one tensor is one again."""
    import torch

    made: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        places: Any = (module._parameters, module._buffers)
        for tensors in places:
            for name, old in tensors.items():
                if old is None:
                    continue
                if old not in made:
                    new = torch.empty_like(old, device="cpu", requires_grad=False)
                    is_param = isinstance(old, torch.nn.Parameter)
                    made[old] = torch.nn.Parameter(new, requires_grad=old.requires_grad) if is_param else new
                tensors[name] = made[old]


def _largest_block(model: "torch.nn.Module") -> int:
    """Weights of the largest block of a list, or of what stands in no list."""
    import torch

    blocks: list[torch.nn.Module] = []

    def visit(module: torch.nn.Module) -> None:
        for child in module.children():
            if isinstance(child, torch.nn.ModuleList):
                blocks.extend(child)
            else:
                visit(child)

    visit(model)
    sizes = [[(id(param), param.nbytes) for param in block.parameters()] for block in blocks]
    inside = {place for block in sizes for place, _ in block}
    outside = sum(param.nbytes for param in model.parameters() if id(param) not in inside)
    return max([outside, *(sum(size for _, size in block) for block in sizes)])
