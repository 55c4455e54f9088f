"""Targets: a frozen cell becomes an optimizer where people train models."""

from ._export import export as export, open_artifact as open_artifact, TARGETS as TARGETS
from ._inprocess import optax_function as optax_function, torch_class as torch_class
