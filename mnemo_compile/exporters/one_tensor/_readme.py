"""Parts of the README that these targets share. Markdown has one sentence per line."""

import json
from collections.abc import Iterable

from ...program import CompiledCell
from ...step import EMBEDDING_ASPECT, group_of, LARGEST_SPACE, ROLES
from ._shapes import carried, network, refuses, share_inputs, step_inputs

_ABOUT = {
    "matrix": "1 for two axes or more, else 0",
    "aspect": "longest axis over the product of the others, 1 for fewer than two axes",
    "role": f"the role's number: {', '.join(f'{i} {role}' for i, role in enumerate(ROLES))}",
    "total_steps": "the number of steps of the run, 0 if unknown",
    "lr": "multiplies the step, 1",
    "weight_decay": "decoupled weight decay, 0",
    "step": "steps taken",
    "skipped": "steps refused because a gradient was not finite",
    "state": "the tensor's state",
    "network": "a sum over the network's tensors",
}


def input_table(compiled: CompiledCell, *, has_bfloat16: bool) -> str:
    """The inputs of the step as a table. `has_bfloat16` says whether slots of bfloat16 have that dtype here."""
    rows = ["| input | shape | what it is |", "|---|---|---|", "| `param`, `grad` | N | the tensor and its gradient |"]
    for name, shape in step_inputs(compiled).items():
        if name not in ("param", "grad"):
            sizes = " × ".join(map(str, shape)) or "scalar"
            rows.append(f"| `{name}` | {sizes} | {_about(compiled, name, has_bfloat16=has_bfloat16)} |")
    return "\n".join(rows)


def _about(compiled: CompiledCell, name: str, *, has_bfloat16: bool) -> str:
    group = group_of(name)
    if group != "memory":
        return _ABOUT[group]
    (slot,) = (slot for slot in compiled.memory_slots if name == f"memory.{slot.name}")
    suffix = ", in bfloat16" if slot.dtype == "bfloat16" and has_bfloat16 else ""
    return f"memory per {slot.per}{suffix}"


def notes(compiled: CompiledCell, suffix: str) -> list[str]:
    """Paragraphs below the table. `suffix` is the suffix of the files."""
    slots, inputs = compiled.memory_slots, step_inputs(compiled)
    paragraphs = [
        [
            f"`init{suffix}` computes the initial {joined(carried(compiled))} from a `param`.",
            f"`update{suffix}` gives an output `next.…` of the same shape for each of them and for `param`.",
            "It is the input of the next step.",
            "`finite` is a scalar output: it is false where the step was refused and nothing changed.",
            "Refuse the step of the other tensors too, as the other targets do.",
        ]
    ]
    if any(slot.per == "chunk" for slot in slots):
        paragraphs.append(
            [
                f"C is the number of chunks: N / {compiled.chunk_length}, rounded up.",
                f"The last one may have fewer than {compiled.chunk_length} coordinates.",
            ]
        )
    for slot in slots:
        if slot.roles is not None:
            roles = "role" if len(slot.roles) == 1 else "roles"
            paragraphs.append(
                [
                    f"Tensors of the {roles} {_spoken(slot.roles)} have `memory.{slot.name}`.",
                    "Tensors of other roles need not store it: give zeros each time.",
                ]
            )
    if "role" in inputs:
        paragraphs.append(
            [
                "If only the shape of a tensor is known, ignore its axes of size 1.",
                "The role is vector for fewer than two axes.",
                f"With two axes it is embedding if one is {EMBEDDING_ASPECT} times the other or more, else matrix.",
                f"With more it is convolution if no axis of space is longer than {LARGEST_SPACE}, else embedding.",
                "The head is the layer that gives the network's output.",
            ]
        )
    if network(compiled):
        # Sums that depend on no gradient are always finite.
        refusal = [f"If a sum is not finite, `update{suffix}` refuses the step."] if refuses(compiled) else []
        paragraphs.append(
            [
                "A step depends on sums over all tensors of the network.",
                f"`share{suffix}` takes {joined(share_inputs(compiled))} of a tensor, as `update{suffix}` does.",
                f"It gives the tensor's terms of {joined(network(compiled))}.",
                "Add up the terms of all tensors that train together.",
                f"Give the sums to `update{suffix}` with each of the tensors.",
                *refusal,
            ]
        )
    return ["\n".join(lines) for lines in paragraphs]


def phases_note(compiled: CompiledCell, form: str) -> str:
    """A description of `phases/`. `form` is what it contains: models or functions."""
    plan = compiled.plan
    of_tensors = [phase.name for phase in plan if phase.rows == "tensors"]
    sums = [phase.name for phase in plan if phase.reduce == "tensor"]
    others = "Rows of the others" if of_tensors else "Rows"
    lines = [
        f"`phases/` holds {joined(phase.name for phase in plan)} as separate {form}.",
        "They are for programs that split a tensor among devices.",
        *([f"Rows of {joined(of_tensors)} are tensors."] if of_tensors else []),
        f"{others} are chunks of {compiled.chunk_length} coordinates.",
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
    values = {"matrix": 0, "aspect": 1, "role": 0, "total_steps": 100, "lr": 1, "weight_decay": 0}
    return json.dumps({name: value for name, value in values.items() if name in step_inputs(compiled)})


def joined(names: Iterable[str]) -> str:
    """`a`, `b` and `c`, each in backticks."""
    return _spoken(f"`{name}`" for name in names)


def _spoken(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
