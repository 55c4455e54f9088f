import dataclasses
import re

from .._names import Names
from .._program import Operand, Program, Value

_NUMBER = re.compile(r"(_\d+)+$")
"""The end of a name that tells values of one name apart."""


def renumber(program: Program) -> Program:
    """Numbers the values of one name in the order in which they are computed."""
    names = Names(value.name for value in (*program.inputs, *program.weights))
    renamed: dict[Operand, Value] = {}
    equations = []
    for equation in program.equations:
        inputs = tuple(renamed.get(operand, operand) for operand in equation.inputs)
        for value in equation.outputs:
            renamed[value] = dataclasses.replace(value, name=names.fresh(base_name(value.name)))
        outputs = tuple(renamed[value] for value in equation.outputs)
        equations.append(dataclasses.replace(equation, inputs=inputs, outputs=outputs))
    outputs = tuple((name, renamed.get(operand, operand)) for name, operand in program.outputs)
    return dataclasses.replace(program, equations=tuple(equations), outputs=outputs)


def base_name(name: str) -> str:
    """The name without its number."""
    return _NUMBER.sub("", name)
