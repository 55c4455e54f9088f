"""Shared by targets that export the step of one tensor: inputs, the step, verification and the README."""

from ._readme import (
    input_table as input_table,
    joined as joined,
    notes as notes,
    numbers as numbers,
    phases_note as phases_note,
)
from ._rollout import AbstractOneTensorExport as AbstractOneTensorExport
from ._signature import (
    AXES as AXES,
    CHUNKS as CHUNKS,
    COUNTERS as COUNTERS,
    function_name as function_name,
    NUMBERS as NUMBERS,
    Signature as Signature,
    signatures as signatures,
)
from ._step import AbstractTensor as AbstractTensor, share_outputs as share_outputs, step_outputs as step_outputs
from ._view import View as View, views_of as views_of
