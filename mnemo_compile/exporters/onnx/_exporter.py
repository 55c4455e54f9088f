"""The onnx target: one tensor's step as a model, and the phases as models of their own."""

import pathlib

import onnx_ir as ir

from ...frozen import FrozenCell
from ...program import CompiledCell
from ...verify import AbstractExport
from .._interface import AbstractExporter
from .._text import write_text
from ._builder import finished, serialised
from ._export import OnnxExport
from ._graphs import init_graph, phase_graph, share_graph, step_graph
from ._readme import readme
from ._text import model_text


class OnnxExporter(AbstractExporter):
    """Writes `init.onnx`, `update.onnx`, `share.onnx` if the cell has that phase, `phases/` and a README."""

    @property
    def name(self) -> str:
        return "onnx"

    def emit(self, frozen: FrozenCell, compiled: CompiledCell, folder: pathlib.Path) -> None:
        models = _models(frozen, compiled)
        (folder / "phases").mkdir()
        for name, model in models.items():
            (folder / name).write_bytes(serialised(model))
        write_text(folder / "README.md", readme(frozen, compiled))

    def text(self, frozen: FrozenCell, compiled: CompiledCell) -> str:
        return "\n\n".join(model_text(name, model) for name, model in _models(frozen, compiled).items()) + "\n"

    def open(self, frozen: FrozenCell, folder: pathlib.Path) -> AbstractExport:
        return OnnxExport(folder)


def _models(frozen: FrozenCell, compiled: CompiledCell) -> dict[str, ir.Model]:
    """Every model, by the name of its file."""
    graphs = {
        "init.onnx": init_graph(compiled),
        **({"share.onnx": share_graph(compiled)} if "share" in compiled.programs else {}),
        "update.onnx": step_graph(compiled),
        **{f"phases/{name}.onnx": phase_graph(program) for name, program in compiled.programs.items()},
    }
    return {name: finished(graph, frozen) for name, graph in graphs.items()}
