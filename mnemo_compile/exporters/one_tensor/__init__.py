"""Shared by targets that export the step of one tensor: inputs, the step, verification and the README."""

from ._readme import (
    input_table as input_table,
    joined as joined,
    notes as notes,
    numbers as numbers,
    phases_note as phases_note,
)
from ._rollout import AbstractOneTensorExport as AbstractOneTensorExport
from ._shapes import (
    carried as carried,
    COUNTERS as COUNTERS,
    is_per_chunk as is_per_chunk,
    memory as memory,
    network as network,
    NUMBERS as NUMBERS,
    share_inputs as share_inputs,
    SIZES as SIZES,
    state as state,
    step_inputs as step_inputs,
)
from ._step import AbstractTensor as AbstractTensor, share_outputs as share_outputs, step_outputs as step_outputs
