"""What a step is: how tensors become rows, and in which order the phases run. The module `reference` takes one."""

from ._layout import (
    chunk_count as chunk_count,
    Layout as Layout,
    Role as Role,
    ROLES as ROLES,
    sampled_chunks as sampled_chunks,
    shape_facts as shape_facts,
    shape_role as shape_role,
    TALL as TALL,
)
