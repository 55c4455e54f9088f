"""What the READMEs of the targets share whose step is that of one tensor."""

import json
import textwrap
from collections.abc import Iterable

from ...step import ROLES, TALL
from ...program import CompiledCell, OF_TENSORS
from ._shapes import carried, measures, network, share_inputs, step_inputs

_TOLD = {
    "matrix": "1 for a tensor of two axes and more, else 0",
    "aspect": "longest axis over the product of the others; 1 for fewer than two axes",
    "role": f"what the tensor is to its network: {', '.join(f'{i} {role}' for i, role in enumerate(ROLES))}",
    "total_steps": "how many steps will be taken, 0 if that is not known",
    "lr": "multiplies the step; 1",
    "weight_decay": "decoupled; 0",
    "step": "steps taken",
    "skipped": "steps refused because a gradient was not finite",
    "state": "the tensor's state",
    "network": "a sum over the network's tensors",
}


def input_table(compiled: CompiledCell, *, has_bfloat16: bool) -> str:
    """The inputs of the step as a table. `has_bfloat16` is whether what is kept in bfloat16 comes in that."""
    rows = ["| input | shape | what it is |", "|---|---|---|", "| `param`, `grad` | N | the tensor and its gradient |"]
    for name, shape in step_inputs(compiled).items():
        if name not in ("param", "grad"):
            sizes = " × ".join(map(str, shape)) or "scalar"
            rows.append(f"| `{name}` | {sizes} | {_about(compiled, name, has_bfloat16=has_bfloat16)} |")
    return "\n".join(rows)


def _about(compiled: CompiledCell, name: str, *, has_bfloat16: bool) -> str:
    group, _, key = name.partition(".")
    if group != "memory":
        return _TOLD[group]
    slot = compiled.memory_slots[key]
    suffix = ", in bfloat16" if slot.dtype == "bfloat16" and has_bfloat16 else ""
    return f"the memory of each {slot.level}{suffix}"


def notes(compiled: CompiledCell, suffix: str) -> list[str]:
    """Paragraphs below the table. `suffix` is that of the files."""
    slots, inputs = compiled.memory_slots, step_inputs(compiled)
    texts = [
        f"`init{suffix}` makes {listed(carried(compiled))} of a `param`, as they are before the first step. "
        f"`update{suffix}` gives for each of them, and for `param`, an output `next.…` of the same shape, the input of "
        "the next step. `finite` is a scalar output: false where the step was refused and nothing changed. Refuse the "
        "step of the other tensors too, to do what the other targets do."
    ]
    if any(slot.level == "chunk" for slot in slots.values()):
        texts.append(
            f"C is the number of chunks: N / {compiled.chunk_length}, rounded up. The last one may have fewer than "
            f"{compiled.chunk_length} coordinates."
        )
    for name, slot in slots.items():
        if slot.roles is not None:
            texts.append(
                f"`memory.{name}` is kept by tensors of the {_plural('role', slot.roles)} {_spoken(slot.roles)}. Those "
                "of other roles need not keep it: it is zeros for them each time."
            )
    if "role" in inputs:
        texts.append(
            "Of a tensor of which nothing is known but its shape, axes of size 1 not counted, the role is vector if it "
            f"has fewer than two axes, convolution if more than two, else embedding if one axis is {TALL} times the "
            "other or more, else matrix. The head is the layer that gives the network's output."
        )
    if network(compiled):
        # What no gradient goes into is finite whatever they are.
        refused = "A sum that is not finite, as where some gradient is not, makes it refuse the step."
        texts.append(
            f"Tensors tell each other something before each step. `share{suffix}` takes "
            f"{listed(share_inputs(compiled))} of a tensor, as `update{suffix}` does, and gives its terms of "
            f"{listed(network(compiled))}. Add up those of all tensors that are trained together, and give the sums to "
            f"`update{suffix}` with each of them. {refused if measures(compiled) else ''}"
        )
    return list(map(paragraph, texts))


def phases_note(compiled: CompiledCell, form: str) -> str:
    """What is in `phases/`. `form` is what a phase is there: a model, a function."""
    phases = compiled.programs
    of_tensors = [name for name in OF_TENSORS if name in phases]
    summed = [name for name in phases if name not in ("recall", "share", "update")]
    rows = f"rows of {listed(of_tensors)} are tensors, of the others" if of_tensors else "rows are"
    give = "give" if len(summed) > 1 else "gives"
    shared = "; what `share` gives is summed over the network's tensors" if "share" in phases else ""
    return paragraph(
        f"`phases/` holds {listed(phases)} as {form} of their own, for who splits a tensor among devices: {rows} "
        f"chunks of {compiled.chunk_length} coordinates; what {listed(summed)} {give} is summed over "
        f"a tensor's chunks{shared}. An output `next.…` is the next value of the input of that name."
    )


def numbers(compiled: CompiledCell) -> str:
    """What the example gives every step, as Python."""
    values = {"matrix": 0, "aspect": 1, "role": 0, "total_steps": 100, "lr": 1, "weight_decay": 0}
    return json.dumps({name: value for name, value in values.items() if name in step_inputs(compiled)})


def paragraph(text: str) -> str:
    """The text in lines of 120 characters."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    return _spoken(f"`{name}`" for name in names)


def _spoken(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _plural(word: str, words: Iterable[str]) -> str:
    return word if len(list(words)) == 1 else f"{word}s"
