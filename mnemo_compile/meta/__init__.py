"""Meta-training: tasks, unrolls, meta-gradients, and the runs that they make up."""

from ._config import load_config as load_config, presets as presets, RunConfig as RunConfig
from ._folder import holds_run as holds_run
from ._monitor import plot as plot
from ._processes import Place as Place
from ._programs import keep_compiled_programs as keep_compiled_programs
from ._start import Start as Start
from ._trainer import meta_train as meta_train
