"""From a JAX function to a Program: the one file that touches JAX's internals, by attributes and not by classes."""

import ast
import functools
import pathlib
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox
import jax
import jaxtyping
import numpy as np

from ._program import Dim, Equation, Literal, Operand, Program, Value

ROWS = "rows"
"""The free size of every phase."""

_LIBRARIES = tuple(str(pathlib.Path(module.__file__ or "").parent) for module in (jax, equinox, jaxtyping, functools))


@functools.cache
def _rows() -> Any:
    return jax.export.symbolic_shape(ROWS)[0]


def rows_of(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    """Any number of rows of this shape."""
    return jax.ShapeDtypeStruct((_rows(), *shape), dtype)


class Known(NamedTuple):
    """An array that does not depend on the inputs."""

    array: np.ndarray
    is_weight: bool
    """Whether it depends on a weight, and not on the code alone."""
    name: str | None = None
    """Name of the weight that it is, where it is one."""
    hint: str = "constant"
    """What the code calls it."""


def trace(
    name: str,
    function: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
) -> tuple[Program, dict[str, np.ndarray]]:
    """Traces a phase.

    What depends on the weights alone is computed here and becomes a weight of its own; nested calls are inlined.

    **Arguments:**

    - `name`: of the phase.
    - `function`: from weights and inputs, both by name, to outputs by name.
    - `weights`: the arrays.
    - `inputs`: shapes and dtypes.

    **Returns:**

    The program, with primitives of the closed set where they are known and JAX's own where they are not, and its
    weights.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(dict(weights), dict(inputs))
    builder = _Builder()
    # A dictionary's leaves come in the order of its sorted keys.
    known = [Known(weights[key], True, key) for key in sorted(weights)]
    given = [Value(key, _shape(inputs[key].shape), str(np.dtype(inputs[key].dtype))) for key in sorted(inputs)]
    builder.taken.update(value.name for value in given)
    with jax.default_device(jax.devices("cpu")[0]):
        results = builder.run(closed.jaxpr, closed.consts, [*known, *given])
        outputs = tuple((key, builder.operand(atom)) for key, atom in zip(sorted(shapes), results, strict=True))
    used = tuple(builder.weights[key][0] for key in sorted(builder.weights))
    program = Program(name, tuple(given), used, tuple(builder.equations), outputs)
    return program, {key: array for key, (_, array) in builder.weights.items()}


class _Builder:
    """Walks jaxprs and collects equations."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.weights: dict[str, tuple[Value, np.ndarray]] = {}
        self.taken: set[str] = set()

    def run(
        self,
        jaxpr: Any,
        consts: Sequence[Any],
        arguments: Sequence[Known | Operand],
        caller: tuple[str, str] = ("value", "unknown"),
    ) -> list[Known | Operand]:
        """What the jaxpr's outputs are, given what its inputs are and the line that calls it."""
        atoms: dict[Any, Known | Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        atoms.update((var, Known(np.asarray(const), False)) for var, const in zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> Known | Operand:
            # A literal holds its value; a variable does not.
            return Known(np.asarray(atom.val), False) if hasattr(atom, "val") else atoms[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            atoms.update(zip(equation.outvars, self.equation(equation, operands, caller), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(
        self, equation: Any, operands: list[Known | Operand], caller: tuple[str, str]
    ) -> Sequence[Known | Operand]:
        """What the outputs of one of JAX's equations are."""
        primitive, params = equation.primitive, equation.params
        frame = _user_frame(equation) or caller
        inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
        if inner is not None and primitive.name not in ("scan", "while", "cond"):
            closed = hasattr(inner, "consts")
            return self.run(inner.jaxpr if closed else inner, inner.consts if closed else (), operands, frame)
        avals = [var.aval for var in equation.outvars]
        known = [operand for operand in operands if isinstance(operand, Known)]
        if len(known) == len(operands) and all(isinstance(size, int) for aval in avals for size in aval.shape):
            results = primitive.bind(*(operand.array for operand in known), **params)
            is_weight = any(operand.is_weight for operand in known)
            same = known[0].name if primitive.name in _IDENTITY else None
            return [
                Known(np.asarray(array), is_weight, same, frame[0])
                for array in (results if primitive.multiple_results else [results])
            ]
        if primitive.name in _IDENTITY:
            return operands
        emit = _Emit(self, frame, _shape(avals[0].shape), str(avals[0].dtype))
        lowering = _LOWERINGS.get(primitive.name)
        lowered = None if lowering is None else lowering(emit, operands, params)
        if lowered is not None:
            return [lowered]
        hint, source = frame
        outputs = tuple(self.value(hint, _shape(aval.shape), str(aval.dtype)) for aval in avals)
        inputs = tuple(self.operand(operand) for operand in operands)
        self.equations.append(Equation(primitive.name, inputs, outputs, dict(params), source))
        return outputs

    def value(self, hint: str, shape: tuple[Dim, ...], dtype: str) -> Value:
        """A new value with a name like this one."""
        return Value(self.unique(hint), shape, dtype)

    def unique(self, hint: str) -> str:
        name, count = hint, 1
        while name in self.taken:
            count += 1
            name = f"{hint}_{count}"
        self.taken.add(name)
        return name

    def operand(self, atom: Known | Operand) -> Operand:
        """The atom as an equation's input: of what is known, the code's numbers become literals, the rest weights."""
        if not isinstance(atom, Known):
            return atom
        if atom.array.ndim == 0 and not atom.is_weight:
            return Literal(atom.array.item(), str(atom.array.dtype))
        name = atom.name or self.derived(atom.array, atom.hint)
        value = Value(name, _shape(atom.array.shape), str(atom.array.dtype))
        self.weights[name] = (value, atom.array)
        return value

    def derived(self, array: np.ndarray, hint: str) -> str:
        """The name of an array that was computed from weights; equal arrays share one."""
        for name, (_, other) in self.weights.items():
            if name.startswith("derived.") and other.dtype == array.dtype and np.array_equal(other, array):
                return name
        return self.unique(f"derived.{hint}")


class _Emit:
    """Appends equations for one of JAX's, under its name and source line."""

    def __init__(self, builder: _Builder, frame: tuple[str, str], shape: tuple[Dim, ...], dtype: str):
        self.builder = builder
        self.hint, self.source = frame
        self.shape = shape
        self.dtype = dtype

    def __call__(
        self, primitive: str, *inputs: Known | Operand, shape: tuple[Dim, ...] | None = None, **params: Any
    ) -> Value:
        operands = tuple(self.builder.operand(atom) for atom in inputs)
        output = self.builder.value(self.hint, self.shape if shape is None else shape, self.dtype)
        self.builder.equations.append(Equation(primitive, operands, (output,), params, self.source))
        return output

    def reshape(self, atom: Known | Operand, shape: tuple[Dim, ...]) -> Known | Operand:
        """The atom in this shape."""
        return atom if _atom_shape(atom) == shape else self("reshape", atom, shape=shape)


def _shape(shape: Sequence[Any]) -> tuple[Dim, ...]:
    return tuple(int(size) if isinstance(size, int | np.integer) else str(size) for size in shape)


def _atom_shape(atom: Known | Operand) -> tuple[Dim, ...]:
    return _shape(atom.array.shape) if isinstance(atom, Known) else atom.shape


# How JAX's primitives are said in the closed set. A lowering that cannot say it returns None.

Lowering = Callable[[_Emit, list[Known | Operand], Mapping[str, Any]], "Known | Operand | None"]

_IDENTITY = frozenset({"stop_gradient", "copy", "copy_p", "optimization_barrier", "pvary"})


def _elementwise(primitive: str) -> Lowering:
    return lambda emit, operands, params: emit(primitive, *operands)


def _square(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("mul", operands[0], operands[0])


def _integer_pow(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand | None:
    return emit("mul", operands[0], operands[0]) if params["y"] == 2 else None


def _less(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("gt", operands[1], operands[0])


def _select(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand | None:
    which, *cases = operands
    if len(cases) != 2:
        return None
    return emit("select", which, cases[1], cases[0])


def _reduce_sum(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("sum", operands[0], axes=tuple(int(axis) for axis in params["axes"]))


def _reshape(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Known | Operand:
    return emit.reshape(operands[0], emit.shape)


def _broadcast(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Known | Operand:
    if _atom_shape(operands[0]) == ():
        return emit("broadcast", operands[0])
    placed = dict(zip(params["broadcast_dimensions"], _atom_shape(operands[0]), strict=True))
    spread = emit.reshape(operands[0], tuple(placed.get(axis, 1) for axis in range(len(emit.shape))))
    return spread if _atom_shape(spread) == emit.shape else emit("broadcast", spread)


def _transpose(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("transpose", operands[0], permutation=tuple(params["permutation"]))


def _concatenate(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("concatenate", *operands, axis=int(params["dimension"]))


def _stack(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    axis = int(params["axis"])
    rows = [
        emit.reshape(operand, (*_atom_shape(operand)[:axis], 1, *_atom_shape(operand)[axis:])) for operand in operands
    ]
    return emit("concatenate", *rows, axis=axis)


def _take(
    emit: _Emit, operand: Known | Operand, ranges: Mapping[int, tuple[int, int]], collapsed: Sequence[int] = ()
) -> Known | Operand:
    """Consecutive places along axes, and without the axes that are collapsed."""
    shape = list(_atom_shape(operand))
    for axis, (start, stop) in sorted(ranges.items()):
        if (start, stop) != (0, shape[axis]):
            shape[axis] = stop - start
            operand = emit("slice", operand, shape=tuple(shape), axis=axis, start=start, stop=stop)
    return emit.reshape(operand, tuple(size for axis, size in enumerate(shape) if axis not in collapsed))


def _slice(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Known | Operand | None:
    strides = params["strides"]
    if strides is not None and any(stride != 1 for stride in strides):
        return None
    starts, stops = params["start_indices"], params["limit_indices"]
    ranges = {
        axis: (int(start), int(stop))
        for axis, (start, stop) in enumerate(zip(starts, stops, strict=True))
        if isinstance(stop, int)
    }
    return _take(emit, operands[0], ranges)


def _gather(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Known | Operand | None:
    """One slice at a place that the code says: what `x[:, 0]` becomes where a size is free."""
    operand, indices = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if not isinstance(indices, Known) or indices.array.ndim != 1 or numbers.operand_batching_dims:
        return None
    shape = _atom_shape(operand)
    ranges: dict[int, tuple[int, int]] = {}
    for axis, start in zip(numbers.start_index_map, indices.array.tolist(), strict=True):
        size, width = shape[axis], sizes[axis]
        if not isinstance(size, int) or not 0 <= start <= size - width:
            return None
        ranges[axis] = (start, start + int(width))
    if any(axis not in ranges and _shape([sizes[axis]])[0] != shape[axis] for axis in range(len(shape))):
        return None
    return _take(emit, operand, ranges, numbers.collapsed_slice_dims)


def _dot_general(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    """A contraction in letters: batch axes first, then what is left of either operand."""
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in _atom_shape(operands[0])]
    right = [""] * len(_atom_shape(operands[1]))
    for mine, theirs in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        right[theirs] = left[mine]
    right = [letter or next(letters) for letter in right]
    batch = [left[axis] for axis in left_batch]
    rest = [letter for axis, letter in enumerate(left) if axis not in (*left_sum, *left_batch)]
    rest += [letter for axis, letter in enumerate(right) if axis not in (*right_sum, *right_batch)]
    return emit("einsum", *operands, subscripts=f"{''.join(left)},{''.join(right)}->{''.join(batch + rest)}")


def _convert(emit: _Emit, operands: list[Known | Operand], params: Mapping[str, Any]) -> Operand:
    return emit("convert", operands[0], dtype=emit.dtype)


_LOWERINGS: dict[str, Lowering] = {
    **{
        name: _elementwise(name)
        for name in ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "tanh", "cos", "add", "sub", "mul", "div", "max")
        + ("min", "gt")
    },
    "lt": _less,
    "square": _square,
    "integer_pow": _integer_pow,
    "select_n": _select,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "slice": _slice,
    "gather": _gather,
    "dot_general": _dot_general,
    "convert_element_type": _convert,
}


def _user_frame(equation: Any) -> tuple[str, str] | None:
    """What the cell's code calls the result of an equation and where that stands, if it is known."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_LIBRARIES) and not frame.file_name.startswith("<"):
            names = _names_of_lines(frame.file_name)
            hint = names.get(frame.line_num, "value")
            return hint, f"{pathlib.PurePath(frame.file_name).name}:{frame.line_num}"
    return None


@functools.cache
def _names_of_lines(file: str) -> dict[int, str]:
    """For each line of an assignment to one name, that name; for each line of another statement, its function's."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.ClassDef):
                inside = re.sub(r"(?<!^)(?=[A-Z])", "_", child.name).lower()
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("__"):
                inside = child.name
            if isinstance(child, ast.Assign | ast.Return | ast.Expr):
                target = child.targets[0] if isinstance(child, ast.Assign) else None
                name = target.id if isinstance(target, ast.Name) else inside
                names.update((line, name) for line in range(child.lineno, (child.end_lineno or child.lineno) + 1))
            else:
                visit(child, inside)

    try:
        visit(ast.parse(pathlib.Path(file).read_text(encoding="utf-8")), "value")
    except (OSError, SyntaxError):
        return {}
    return names
