"""The stablehlo target."""

from ._exporter import StableHloExporter as StableHloExporter
