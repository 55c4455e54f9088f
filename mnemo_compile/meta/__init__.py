"""Meta-training: tasks, inner loops, meta-gradients, and the runs that they make up."""

from ._config import RunConfig as RunConfig
from ._folder import cell_name as cell_name, holds_run as holds_run
from ._load import load_config as load_config, presets as presets
from ._processes import Place as Place
from ._programs import keep_compiled_programs as keep_compiled_programs
from ._start import Start as Start
from ._trainer import meta_train as meta_train
from .monitor import plot as plot
