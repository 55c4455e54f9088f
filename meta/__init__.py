"""Meta-training: tasks, unrolls, meta-gradients, and the runs that they make up."""

from ._config import load_config as load_config, presets as presets, RunConfig as RunConfig
from ._trainer import meta_train as meta_train
