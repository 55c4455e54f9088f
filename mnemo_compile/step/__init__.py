"""What a step is: how tensors become rows, and the plan of phases. The module `reference` computes one in JAX."""

from ._derivatives import inverse_root as inverse_root, quotient as quotient, root as root
from ._layout import (
    chunk_count as chunk_count,
    Dtype as Dtype,
    Layout as Layout,
    MemorySlot as MemorySlot,
    sampled_chunks as sampled_chunks,
    shape_numbers as shape_numbers,
    tile_slots as tile_slots,
    TILED as TILED,
    Tiling as Tiling,
    tiling as tiling,
)
from ._plan import (
    CARRIED as CARRIED,
    FIELDS as FIELDS,
    group_of as group_of,
    is_lasting as is_lasting,
    OF_PARTS as OF_PARTS,
    Phase as Phase,
    PHASES as PHASES,
    PLAN as PLAN,
)
from ._roles import (
    Axes as Axes,
    describe as describe,
    Description as Description,
    EMBEDDING_ASPECT as EMBEDDING_ASPECT,
    LARGEST_SPACE as LARGEST_SPACE,
    Reason as Reason,
    Role as Role,
    ROLES as ROLES,
    shape_role as shape_role,
)
