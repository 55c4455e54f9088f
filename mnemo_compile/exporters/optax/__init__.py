"""The optax target."""

from ._exporter import OptaxExporter as OptaxExporter
