"""The onnx target."""

from ._exporter import OnnxExporter as OnnxExporter
