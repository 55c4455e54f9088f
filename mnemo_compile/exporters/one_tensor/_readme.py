"""Parts of the README that these targets share. Markdown has one sentence per line."""

import json
from collections.abc import Iterable, Iterator

from ...program import CompiledCell, Dim
from ...step import EMBEDDING_ASPECT, group_of, LARGEST_SPACE, ROLES, TILED
from ._signature import AXES, CHUNKS, Signature, signatures

_ABOUT = {
    "role": f"the role's number: {', '.join(f'{i} {role}' for i, role in enumerate(ROLES))}",
    "matrix": "1 for two axes or more, else 0",
    "aspect": "longest axis over the product of the others, 1 for fewer than two axes",
    "total_steps": "the number of steps of the run, 0 if unknown",
    "lr": "multiplies the step, 1",
    "weight_decay": "decoupled weight decay, 0",
    "pretrained": "1 if the network is pretrained, 0 if not, -1 if unknown",
    "step": "steps taken",
    "skipped": "steps refused because a gradient was not finite",
    "state": "the tensor's state",
    "network": "a sum over the network's tensors",
}


def input_table(compiled: CompiledCell, *, has_bfloat16: bool) -> str:
    """The inputs of the step as a table. `has_bfloat16` says whether slots of bfloat16 have that dtype here."""
    first, *_ = signatures(compiled)
    rows = [
        "| input | shape | what it is |",
        "|---|---|---|",
        f"| `param`, `grad` | {_sizes(AXES)} | the tensor and its gradient |",
    ]
    for name, shape in first.inputs.items():
        if name not in ("param", "grad"):
            rows.append(f"| `{name}` | {_sizes(shape)} | {_about(first, name, has_bfloat16=has_bfloat16)} |")
    return "\n".join(rows)


def _sizes(shape: Iterable[Dim]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _about(signature: Signature, name: str, *, has_bfloat16: bool) -> str:
    group = group_of(name)
    if group != "memory":
        return _ABOUT[group]
    (slot,) = (slot for slot in signature.slots if name == f"memory.{slot.name}")
    suffix = ", in bfloat16" if slot.dtype == "bfloat16" and has_bfloat16 else ""
    return f"memory per {slot.per}{suffix}"


def notes(compiled: CompiledCell, suffix: str) -> list[str]:
    """Paragraphs below the table. `suffix` is the suffix of the files."""
    paragraphs = [
        _carried(compiled, suffix),
        *_matrices(compiled, suffix),
        _views(compiled),
        *_chunk_memory(compiled),
        *_slots_of_roles(compiled),
        *_roles(compiled),
        *_network(compiled, suffix),
    ]
    return ["\n".join(lines) for lines in paragraphs]


Paragraph = list[str]


def _carried(compiled: CompiledCell, suffix: str) -> Paragraph:
    signature = signatures(compiled)[0]
    return [
        f"`init{suffix}` computes the initial {joined(signature.carried)} from a `param`.",
        f"`update{suffix}` gives an output `next.…` of the same shape for each of them and for `param`.",
        "It is the input of the next step.",
        "`finite` is a scalar output: it is false where the step was refused and nothing changed.",
        "Refuse the step of the other tensors too, as the other targets do.",
    ]


def _matrices(compiled: CompiledCell, suffix: str) -> Iterator[Paragraph]:
    if not compiled.tile:
        return
    without, with_tiles = signatures(compiled)
    missing = [name for name in without.memory if name not in with_tiles.memory]
    functions = ["init", "share", "update"] if without.network else ["init", "update"]
    yield [
        f"Tensors of the roles {_spoken(TILED)} have {joined(f'{name}_matrix{suffix}' for name in functions)} instead.",
        *([f"These take no {joined(missing)}."] if missing else []),
        f"They cut each matrix into the fewest tiles of at most {compiled.tile} × {compiled.tile}, of equal sizes.",
        "The step of a tile has the direction of its polar factor, by products in float32.",
        "A matrix and its transpose get the same step.",
    ]


def _views(compiled: CompiledCell) -> Paragraph:
    length = compiled.chunk_length
    vector = "A vector of n coordinates is 1 × 1 × n."
    if not compiled.tile:
        return [
            vector,
            "Any other tensor is 1 × rows × columns, in row-major order.",
            f"Its columns are its last axes, as few as have {length} coordinates or more, or all axes.",
        ]
    return [
        vector,
        "A matrix is 1 × rows × columns, and matrices side by side, such as experts or a fused qkv, are a batch.",
        "A convolution is 1 × outputs × (inputs · space).",
        "Any other tensor is 1 × rows × columns, in row-major order.",
        f"Its columns are its last axes, as few as have {length} coordinates or more, or all axes.",
    ]


def _chunk_memory(compiled: CompiledCell) -> Iterator[Paragraph]:
    length = compiled.chunk_length
    if any(slot.per == "chunk" for slot in compiled.memory_slots):
        yield [
            f"{CHUNKS} is batch · rows · (columns / {length}, rounded up), and a chunk is {length} coordinates.",
            f"Chunks restart at each row, or at each matrix if a row has fewer than {length} coordinates.",
            "If a matrix has fewer, they do not restart.",
            "So there may be fewer chunks, and then the last entries are zero.",
        ]


def _slots_of_roles(compiled: CompiledCell) -> Iterator[Paragraph]:
    served = [role for role in ROLES if not compiled.tile or role not in TILED]
    for slot in compiled.memory_slots:
        owners = [role for role in served if slot.applies_to(role)]
        if owners != served:
            roles = "role" if len(owners) == 1 else "roles"
            yield [
                f"Tensors of the {roles} {_spoken(owners)} have `memory.{slot.name}`.",
                "Tensors of other roles need not store it: give zeros each time.",
            ]


def _roles(compiled: CompiledCell) -> Iterator[Paragraph]:
    if "role" in signatures(compiled)[0].inputs or compiled.tile:
        yield [
            "A tensor's layer says its role.",
            "Biases, gains and tensors of one axis are vectors.",
            "Tables of tokens and positions are embeddings, and so are prompts.",
            "The head is the layer that gives the network's output.",
            "Kernels that see several places are convolutions, and weights of other layers are matrices.",
            "If only the shape of a tensor is known, ignore its axes of size 1.",
            "The role is vector for fewer than two axes.",
            f"With two axes it is embedding if one is {EMBEDDING_ASPECT} times the other or more, else matrix.",
            f"With more it is convolution if no axis of space is longer than {LARGEST_SPACE}, else embedding.",
        ]


def _network(compiled: CompiledCell, suffix: str) -> Iterator[Paragraph]:
    signature = signatures(compiled)[0]
    if signature.network:
        # Sums that depend on no gradient are always finite.
        decides = any(phase.decides for phase in signature.share_phases)
        refusal = [f"If a sum is not finite, `update{suffix}` refuses the step."] if decides else []
        yield [
            "A step depends on sums over all tensors of the network.",
            f"`share{suffix}` takes {joined(signature.share_inputs)} of a tensor, as `update{suffix}` does.",
            f"It gives the tensor's terms of {joined(signature.network)}.",
            "Add up the terms of all tensors that train together.",
            f"Give the sums to `update{suffix}` with each of the tensors.",
            *refusal,
        ]


def phases_note(compiled: CompiledCell, form: str) -> str:
    """A description of `phases/`. `form` is what it contains: models or functions."""
    plan = compiled.plan
    names = {rows: [phase.name for phase in plan if phase.rows == rows] for rows in ("tensors", "tiles")}
    sums = [phase.name for phase in plan if phase.reduce == "tensor"]
    lines = [
        f"`phases/` holds {joined(phase.name for phase in plan)} as separate {form}.",
        "They are for programs that split a tensor among devices.",
        *([f"Rows of {joined(names['tensors'])} are tensors."] if names["tensors"] else []),
        *([f"Rows of {joined(names['tiles'])} are tiles with no more rows than columns."] if names["tiles"] else []),
        f"{'Rows of the others' if any(names.values()) else 'Rows'} are chunks of {compiled.chunk_length} coordinates.",
        f"Sum the outputs of {joined(sums)} over a tensor's chunks.",
        *(
            f"Sum the outputs of `{phase.name}` over the network's tensors."
            for phase in plan
            if phase.reduce == "network"
        ),
        "An output `next.…` is the next value of the input of that name.",
    ]
    return "\n".join(lines)


def numbers(compiled: CompiledCell) -> str:
    """The numbers that the example passes in every step, as Python source."""
    values = {"role": 0, "matrix": 0, "aspect": 1, "total_steps": 100, "lr": 1, "weight_decay": 0, "pretrained": -1}
    inputs = signatures(compiled)[0].inputs
    return json.dumps({name: value for name, value in values.items() if name in inputs})


def joined(names: Iterable[str]) -> str:
    """`a`, `b` and `c`, each in backticks."""
    return _spoken(f"`{name}`" for name in names)


def _spoken(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
