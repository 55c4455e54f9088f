"""Whether a phase over chunks is the same arithmetic for each coordinate."""

from ...program import has_trait, Operand, Program, Trait
from ...step import OF_PARTS


def is_of_any_shape(program: Program) -> bool:
    """Whether a phase gives the same on arrays of another shape, with one row for each number of the tensor.

    So it is where everything with coordinates is arithmetic, beside numbers whose shape is `[rows, 1]`.
    """
    coordinates: set[Operand] = {value for value in program.inputs if value.name.split(".")[0] in OF_PARTS}
    shape = next((value.shape for value in program.inputs if value.name == "grad"), None)
    for equation in program.equations:
        if not coordinates.intersection(equation.inputs):
            if equation.output.shape == shape:
                return False
            continue
        others = [operand for operand in equation.inputs if operand not in coordinates]
        if not has_trait(equation, Trait.ELEMENTWISE) or not all(map(_is_of_rows, others)):
            return False
        coordinates.add(equation.output)
    return all(operand in coordinates for _, operand in program.outputs) and all(
        operand.shape == shape for operand in coordinates
    )


def _is_of_rows(operand: Operand) -> bool:
    """Whether it meets an array of coordinates as a number does."""
    return operand.shape in ((), (1,), (1, 1), ("rows", 1))
