import dataclasses

from .._program import Equation, Operand, Program


def dce(program: Program) -> Program:
    """Removes equations, weights and inputs that no output needs (dead code elimination)."""
    needed: set[Operand] = {operand for _, operand in program.outputs}
    live: list[Equation] = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs):
            live.append(equation)
            needed.update(equation.inputs)
    is_broadcast = any(equation.primitive == "broadcast" for equation in live)
    weights = tuple(value for value in program.weights if value in needed)
    inputs = tuple(value for value in program.inputs if value in needed)
    return dataclasses.replace(
        program,
        # A broadcast to the number of rows has to see one input that has them.
        inputs=inputs or program.inputs[:is_broadcast],
        weights=weights,
        arrays={value.name: program.arrays[value.name] for value in weights},
        equations=tuple(reversed(live)),
    )
