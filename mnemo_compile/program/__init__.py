"""The compiler's middle: cells as typed equations, and passes over them."""

from ._check import check as check
from ._cost import Cost as Cost, cost as cost
from ._evaluate import apply as apply, evaluate as evaluate
from ._names import candidates as candidates, Names as Names
from ._phases import (
    compile_cell as compile_cell,
    CompiledCell as CompiledCell,
    flatten as flatten,
    jaxprs as jaxprs,
    nested as nested,
    phase as phase,
    phase_inputs as phase_inputs,
    Watch as Watch,
)
from ._primitives import (
    broadcast_shapes as broadcast_shapes,
    CLOSED_SET as CLOSED_SET,
    einsum_letters as einsum_letters,
    has_trait as has_trait,
    matrix_product as matrix_product,
    Primitive as Primitive,
    PRIMITIVES as PRIMITIVES,
    Trait as Trait,
    unsupported as unsupported,
)
from ._program import (
    Dim as Dim,
    Equation as Equation,
    is_sized as is_sized,
    Literal as Literal,
    Operand as Operand,
    Program as Program,
    Shape as Shape,
    Value as Value,
)
from ._trace import rows_of as rows_of, TILE as TILE, trace as trace
from .passes import (
    broadcast_implicitly as broadcast_implicitly,
    canonicalise as canonicalise,
    cse as cse,
    dce as dce,
    drop_identities as drop_identities,
    fold as fold,
    for_compiler as for_compiler,
    fuse as fuse,
    inline as inline,
    is_of_chunks as is_of_chunks,
    is_of_tiles as is_of_tiles,
    is_pointwise as is_pointwise,
    literals_last as literals_last,
    optimise as optimise,
    Pass as Pass,
    PASSES as PASSES,
    renumber as renumber,
    separate as separate,
    stages as stages,
    taken as taken,
    transpose_in_einsum as transpose_in_einsum,
    unstack as unstack,
)
