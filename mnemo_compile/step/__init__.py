"""What a step is: how tensors become rows, and the plan of phases. The module `reference` computes one in JAX."""

from ._layout import (
    chunk_count as chunk_count,
    Dtype as Dtype,
    EMBEDDING_ASPECT as EMBEDDING_ASPECT,
    Layout as Layout,
    MemorySlot as MemorySlot,
    Role as Role,
    ROLES as ROLES,
    sampled_chunks as sampled_chunks,
    shape_numbers as shape_numbers,
    shape_role as shape_role,
)
from ._plan import (
    CARRIED as CARRIED,
    FIELDS as FIELDS,
    group_of as group_of,
    is_lasting as is_lasting,
    OF_CHUNKS as OF_CHUNKS,
    Phase as Phase,
    PHASES as PHASES,
    PLAN as PLAN,
)
