"""The compiler's middle: cells as typed equations, and passes over them."""

from ._passes import (
    COMMUTATIVE as COMMUTATIVE,
    cse as cse,
    dce as dce,
    forget_identities as forget_identities,
    literals_last as literals_last,
    optimise as optimise,
    Pass as Pass,
    PASSES as PASSES,
    spread_implicitly as spread_implicitly,
    transpose_in_einsum as transpose_in_einsum,
)
from ._phases import (
    compile_cell as compile_cell,
    CompiledCell as CompiledCell,
    flatten as flatten,
    nested as nested,
    phase as phase,
    phase_inputs as phase_inputs,
    PHASES as PHASES,
)
from ._program import (
    Dim as Dim,
    Equation as Equation,
    Literal as Literal,
    Operand as Operand,
    Program as Program,
    Value as Value,
)
from ._trace import rows_of as rows_of, trace as trace
