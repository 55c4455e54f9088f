"""The torch target."""

from ._exporter import TorchExporter as TorchExporter
