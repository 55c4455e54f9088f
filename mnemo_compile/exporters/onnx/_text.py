"""A model as text for readers."""

from collections.abc import Iterator

import onnx_ir as ir

from ...program import Value

_FEW = 4
"""The most numbers of a constant that are written out."""


def model_text(name: str, model: ir.Model) -> str:
    """A model: inputs, weights by shape, nodes with their bodies in the order of execution, and outputs."""
    return "\n".join([f"model {name}", *(f"  {line}" for line in _graph_lines(model.graph))])


def _graph_lines(graph: ir.Graph) -> Iterator[str]:
    yield from (f"input {_declared(value)}" for value in graph.inputs)
    for value in graph.initializers.values():
        if not _is_constant(value):
            yield f"weight {_declared(value)}"
    for node in graph:
        left = ", ".join(_declared(value) for value in node.outputs)
        inputs = [_operand(value) for value in node.inputs if value is not None]
        attributes = [
            f"{attribute.name}={_plain(attribute)}"
            for attribute in node.attributes.values()
            if attribute.type != ir.AttributeType.GRAPH
        ]
        yield f"{left} = {node.op_type}({', '.join([*inputs, *attributes])})"
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from (f"  {line}" for line in _graph_lines(attribute.as_graph()))
    yield from (f"output %{value.name}" for value in graph.outputs)


def _is_constant(value: ir.Value) -> bool:
    return (value.name or "").startswith("constant.")


def _operand(value: ir.Value) -> str:
    """A name, or the numbers of a small constant."""
    if not _is_constant(value) or value.const_value is None:
        return f"%{value.name}"
    array = value.const_value.numpy()
    numbers = array.reshape(-1).tolist()
    shown = ", ".join(map(str, numbers[:_FEW])) + (f", … {array.size} in all" if array.size > _FEW else "")
    return f"[{shown}]" if array.ndim else shown


def _declared(value: ir.Value) -> str:
    """A name, with dtype and shape where they are known."""
    if value.shape is None or value.dtype is None:
        return f"%{value.name}"
    shape = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
    return f"%{value.name}: {Value('', shape, str(value.dtype.numpy())).type}"


def _plain(attribute: ir.Attr) -> str:
    if attribute.name == "to":
        return str(ir.DataType(attribute.as_int()).numpy())
    return str(list(attribute.value)) if isinstance(attribute.value, tuple | list) else str(attribute.value)
