"""What the memory of a training step is made of, counted without a weight: the command `mnemo plan`."""

from ._command import command as command
from ._memory import Dtype as Dtype, DTYPES as DTYPES, Memory as Memory, Setting as Setting, step_memory as step_memory
from ._models import MODELS as MODELS, Subject as Subject, subject_of as subject_of, TASKS as TASKS
from ._placement import MARGIN as MARGIN, place as place, Placement as Placement
from ._plan import Plan as Plan, plan as plan
from ._sizes import format_size as format_size, parse_size as parse_size
from ._state import state_bytes as state_bytes
