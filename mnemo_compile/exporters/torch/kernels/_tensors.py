"""The kernel of a phase over tensors."""

from ....program import Program
from ._kernel import ARGUMENTS, Kernel
from ._places import Places
from ._symbols import Grid


def tensor_kernel(program: Program, places: Places) -> str:
    """An instance computes a block of tensors."""
    grid = Grid({"rows": "rows"}, {"rows": 0})
    taken = ("tensor", "is_tensor", "number", "state")
    kernel = Kernel(program.name, grid, (*ARGUMENTS, "BLOCK: tl.constexpr"), places, taken)

    def at(name: str, place: int) -> str:
        return kernel.number(name, place, "tensor", "is_tensor")

    inputs = {value.name: kernel.load(value, at, frozenset({"rows"})) for value in program.inputs}
    outputs = kernel.symbols.run(program, inputs)
    for name, array in outputs.items():
        for place, term in enumerate(array.terms.reshape(-1)):
            target = (
                f"state + {places.state[name][0] + place}"
                if name in places.state
                else f"rows + {places.rows[name][0] + place} * tensors + tensor"
            )
            kernel.lines.append(f"tl.store({target}, {term.text}, mask=is_tensor)")
    head = (
        "tensor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
        "is_tensor = tensor < tensors",
        "number = tl.load(group + tensor, mask=is_tensor)",
        f"state = tl.load(pointers + {2 + len(places.memory)} * tensors + tensor, mask=is_tensor)",
        "state = state.to(tl.pointer_type(tl.float32))",
    )
    return kernel.text(head)
