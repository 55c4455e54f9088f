"""The onnx target: one tensor's step as a model, and the phases as models of their own."""

import pathlib

import onnx_ir as ir

from ...frozen import FrozenCell
from ...program import CompiledCell
from ...verify import AbstractExport
from .._interface import AbstractExporter
from .._text import write_text
from ..one_tensor import signatures
from ._builder import finished, serialised
from ._export import OnnxExport
from ._graphs import init_graph, phase_graph, share_graph, step_graph
from ._readme import readme
from ._text import model_text


class OnnxExporter(AbstractExporter):
    """Writes `init.onnx`, `update.onnx`, `share.onnx` if the cell has that phase, `phases/` and a README.

    If the cell has tiles, there are `init_matrix.onnx`, `update_matrix.onnx` and `share_matrix.onnx` too.
    """

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
        return OnnxExport(frozen.cell(), folder)


def _models(frozen: FrozenCell, compiled: CompiledCell) -> dict[str, ir.Model]:
    """Every model, by the name of its file."""
    graphs: dict[str, ir.Graph] = {}
    for signature in signatures(compiled):
        graphs[f"{signature.path('init')}.onnx"] = init_graph(signature)
        if signature.network:
            graphs[f"{signature.path('share')}.onnx"] = share_graph(signature)
        graphs[f"{signature.path('update')}.onnx"] = step_graph(signature)
    graphs.update((f"phases/{name}.onnx", phase_graph(program)) for name, program in compiled.programs.items())
    return {name: finished(graph, frozen) for name, graph in graphs.items()}
