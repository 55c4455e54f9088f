"""Targets: a frozen cell becomes an optimizer where people train models."""

from ._export import (
    artifacts_in as artifacts_in,
    emitted_text as emitted_text,
    export as export,
    open_artifact as open_artifact,
    TARGETS as TARGETS,
    verify_artifact as verify_artifact,
)
from ._inprocess import optax_function as optax_function, torch_class as torch_class
