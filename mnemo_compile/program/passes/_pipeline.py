from collections.abc import Callable, Iterable, Iterator

from .._check import check
from .._program import Program
from ._broadcast_implicitly import broadcast_implicitly
from ._canonicalise import canonicalise
from ._cse import cse
from ._dce import dce
from ._drop_identities import drop_identities
from ._fold import fold
from ._inline import inline
from ._literals_last import literals_last
from ._renumber import renumber
from ._transpose_in_einsum import transpose_in_einsum

Pass = Callable[[Program], Program]
"""A function from a Program to one that means the same. Its name is the pass's, and its docstring says what it does."""

PASSES: dict[str, Pass] = {
    each.__name__: each
    for each in (
        inline,
        canonicalise,
        fold,
        literals_last,
        drop_identities,
        broadcast_implicitly,
        transpose_in_einsum,
        cse,
        dce,
        renumber,
    )
}
"""The passes that make a traced phase what every target reads, by name, in the order in which they are applied."""


def stages(program: Program, passes: Iterable[Pass] = tuple(PASSES.values())) -> Iterator[tuple[str, Program]]:
    """The program after each pass, with the pass's name.

    It is checked each time. A pass that breaks it raises `MnemoError`, which names the pass and the equation.
    """
    for each in passes:
        program = check(each(program), each.__name__)
        yield each.__name__, program


def optimise(program: Program, passes: Iterable[Pass] = tuple(PASSES.values())) -> Program:
    """The program after every pass."""
    for _, program in stages(program, passes):
        pass
    return program
