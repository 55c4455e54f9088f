"""The compiler's middle: cells as typed equations, and passes over them."""

from ._canonical import canonicalise as canonicalise
from ._cost import Cost as Cost, cost as cost
from ._evaluate import apply as apply, CLOSED_SET as CLOSED_SET, evaluate as evaluate
from ._passes import (
    COMMUTATIVE as COMMUTATIVE,
    cse as cse,
    dce as dce,
    fold as fold,
    forget_identities as forget_identities,
    inline as inline,
    literals_last as literals_last,
    optimise as optimise,
    Pass as Pass,
    PASSES as PASSES,
    renumber as renumber,
    spread_implicitly as spread_implicitly,
    stages as stages,
    transpose_in_einsum as transpose_in_einsum,
)
from ._phases import (
    compile_cell as compile_cell,
    CompiledCell as CompiledCell,
    flatten as flatten,
    jaxprs as jaxprs,
    memory_shape as memory_shape,
    nested as nested,
    OF_TENSORS as OF_TENSORS,
    phase as phase,
    phase_inputs as phase_inputs,
    PHASES as PHASES,
    Watch as Watch,
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
