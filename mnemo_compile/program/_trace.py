"""From a JAX function to a Program. It touches JAX's internals, by attributes and not by classes."""

import ast
import contextlib
import functools
import gc
import pathlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

import equinox
import jax
import jaxtyping
import numpy as np

from ..errors import MnemoError
from ._check import check
from ._lax import READINGS
from ._names import Names
from ._primitives import LAX
from ._program import Dim, dims, Equation, Literal, Operand, Program, Value

ROWS = "rows"
"""The free size of every phase."""
TILE = ("height", "width")
"""The other free sizes of a phase over tiles."""

CALL = "call"
"""The primitive of a nested call; its parameter `body` is what is called."""

_LIBRARIES = tuple(str(pathlib.Path(module.__file__ or "").parent) for module in (jax, equinox, jaxtyping, functools))
_LOOPS = ("scan", "while", "cond")

Function = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
Shapes = Mapping[str, jax.ShapeDtypeStruct]


@functools.cache
def _free_sizes() -> dict[str, Any]:
    names = (ROWS, *TILE)
    return dict(zip(names, jax.export.symbolic_shape(", ".join(names)), strict=True))


def rows_of(*shape: Dim, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    """Any number of rows of this shape, whose sizes may be free too."""
    sizes = (ROWS, *shape)
    return jax.ShapeDtypeStruct([_free_sizes()[size] if isinstance(size, str) else size for size in sizes], dtype)


def jaxpr_text(function: Function, weights: Mapping[str, np.ndarray], inputs: Shapes) -> str:
    """What JAX prints of the function."""
    return str(jax.make_jaxpr(function)(dict(weights), dict(inputs)))


def trace(name: str, function: Function, weights: Mapping[str, np.ndarray], inputs: Shapes) -> Program:
    """Traces a phase.

    **Arguments:**

    - `name`: of the phase.
    - `function`: from weights and inputs, both by name, to outputs by name.
    - `weights`: the arrays.
    - `inputs`: shapes and dtypes.

    **Returns:**

    The program in JAX's own primitives, their parameters as plain data, with nested calls as calls. An array that the
    code alone says is a weight called `constant.…`; what depends on weights alone and is said in a primitive that no
    pass knows is one called `derived.…`. A function that cannot be a program raises `MnemoError`.
    """
    with refusals(name), _young_heap(), jax.checking_leaks():
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(dict(weights), dict(inputs))
    # A dictionary's leaves come in the order of its sorted keys.
    weight_values = [Value(key, weights[key].shape, str(weights[key].dtype)) for key in sorted(weights)]
    input_values = [Value(key, dims(inputs[key].shape), str(np.dtype(inputs[key].dtype))) for key in sorted(inputs)]
    scope = _Scope(name, Names((*weights, *inputs)))
    for value in weight_values:
        scope.arrays[value] = np.asarray(weights[value.name])
    with jax.default_device(jax.devices("cpu")[0]):
        results = scope.run(closed.jaxpr, closed.consts, [*weight_values, *input_values])
    return check(scope.program(input_values, zip(sorted(shapes), results, strict=True)), "trace")


_FROZEN_BY_PYTHON = 1000
"""CPython 3.12 itself keeps 375 objects from the collector when it starts, other versions none."""


@contextlib.contextmanager
def _young_heap() -> Iterator[None]:
    """Keeps the garbage collector to what is made inside.

    JAX looks for leaks with a full collection after each function that it traces. What was there before holds no tracer
    of its own, and in a large process to go through it takes nearly all of the time.
    """
    if gc.get_freeze_count() > _FROZEN_BY_PYTHON:
        # Somebody keeps objects from the collector, and there is one such place for all.
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def refusals(name: str) -> Iterator[None]:
    """Errors of tracing as one sentence that names the phase and the line."""
    try:
        yield
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.NonConcreteBooleanIndexError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise MnemoError(
            f"the cell's {name} ({_line_of(error.__traceback__)}) needs to know a value to decide what to compute, "
            "such as a shape or the branch of an if; say it with jnp.where and fixed shapes"
        ) from None
    except MnemoError:
        raise
    except Exception as error:
        said = str(error).strip()
        if said.startswith("Leaked"):
            raise MnemoError(
                f"the cell's {name} keeps an array of the trace outside of it, such as in a list; return what later "
                "steps need"
            ) from None
        first = said.splitlines()[0].rstrip(".") if said else "no reason given"
        line = _line_of(error.__traceback__)
        raise MnemoError(f"the cell's {name} ({line}) cannot be traced: {type(error).__name__}: {first}") from error


class _Scope:
    """Collects the equations of a jaxpr."""

    def __init__(self, name: str, names: Names):
        self.name = name
        self.names = names
        self.equations: list[Equation] = []
        self.arrays: dict[Value, np.ndarray] = {}
        """The content of weights, of constants and of what depends on nothing else."""
        self.coded: set[Value] = set()
        """Those of them that depend on no weight."""
        self.made: set[Value] = set()
        """Those of them that an equation computes."""

    def run(
        self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Operand], caller: tuple[str, str] | None = None
    ) -> list[Operand]:
        """What the outputs of a jaxpr are, from what its inputs are and the line that calls it."""
        atoms: dict[Any, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            atoms[var] = self.constant(np.asarray(const), "constant", coded=True)

        def read(atom: Any) -> Operand:
            # A literal holds its value, which may be a number of Python; a variable does not.
            if not hasattr(atom, "val"):
                return atoms[atom]
            return self.constant(np.asarray(atom.val, atom.aval.dtype), "constant", coded=True)

        for equation in jaxpr.eqns:
            frame = _user_frame(equation) or caller or ("value", "unknown")
            operands = [read(atom) for atom in equation.invars]
            atoms.update(zip(equation.outvars, self.results(equation, operands, frame), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, operands: list[Operand], frame: tuple[str, str]) -> Sequence[Operand]:
        """What the outputs of one of JAX's equations are."""
        primitive, params = equation.primitive, equation.params
        if equation.effects or "callback" in primitive.name:
            raise MnemoError(
                f"the cell's {self.name} ({frame[1]}) calls back into Python with {primitive.name}, which no exported "
                "optimizer can; remove the call"
            )
        inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
        if inner is not None and primitive.name not in _LOOPS:
            return self.call(equation, inner, operands, frame)
        avals = [var.aval for var in equation.outvars]
        hint, source = frame
        arrays = [self.array(operand) for operand in operands]
        computed = None
        if all(array is not None for array in arrays) and _are_sized(avals):
            results = primitive.bind(*arrays, **params)
            computed = [np.asarray(array) for array in (results if primitive.multiple_results else [results])]
            coded = all(isinstance(operand, Literal) or operand in self.coded for operand in operands)
            if coded or primitive.name not in READINGS:
                return [self.constant(array, hint, coded) for array in computed]
        outputs = tuple(self.new(hint, aval.shape, aval.dtype) for aval in avals)
        plain = READINGS[primitive.name].params(params) if primitive.name in READINGS else {}
        self.equations.append(Equation(f"{LAX}{primitive.name}", tuple(operands), outputs, plain, source))
        if computed is not None:
            self.arrays.update(zip(outputs, computed, strict=True))
            self.made.update(outputs)
        return outputs

    def call(self, equation: Any, inner: Any, operands: list[Operand], frame: tuple[str, str]) -> Sequence[Operand]:
        """A nested call. Arguments that depend on weights alone are known inside too."""
        hint, source = frame
        name = str(equation.params.get("name", equation.primitive.name))
        body = _Scope(name, self.names)
        formal = [self.new(f"{name}.{i}", o.shape, o.dtype) for i, o in enumerate(operands)]
        for value, operand in zip(formal, operands, strict=True):
            array = self.array(operand)
            if array is not None:
                body.arrays[value] = array
                body.made.add(value)
                if isinstance(operand, Literal) or operand in self.coded:
                    body.coded.add(value)
        closed = hasattr(inner, "consts")
        results = body.run(inner.jaxpr if closed else inner, inner.consts if closed else (), formal, frame)
        outputs = tuple(self.new(hint, var.aval.shape, var.aval.dtype) for var in equation.outvars)
        for value, result in zip(outputs, results, strict=True):
            array = body.array(result)
            if array is not None:
                self.arrays[value] = array
                self.made.add(value)
                if isinstance(result, Literal) or result in body.coded:
                    self.coded.add(value)
        program = body.program(formal, ((str(i), result) for i, result in enumerate(results)))
        self.equations.append(Equation(CALL, tuple(operands), outputs, {"name": name, "body": program}, source))
        return outputs

    def new(self, hint: str, shape: Sequence[Any], dtype: Any) -> Value:
        """A value with a name like this one."""
        return Value(self.names.fresh(hint), dims(shape), str(dtype))

    def array(self, operand: Operand) -> np.ndarray | None:
        """The operand's content, if it depends on weights alone."""
        if isinstance(operand, Literal):
            return np.asarray(operand.value, operand.dtype)
        return self.arrays.get(operand)

    def constant(self, array: np.ndarray, hint: str, coded: bool) -> Operand:
        """An array that no equation computes: a literal if the code alone says it, else a weight."""
        if coded and array.ndim == 0:
            return Literal(array.item(), str(array.dtype))
        prefix = "constant" if coded else "derived"
        value = self.new(prefix if hint == prefix else f"{prefix}.{hint}", array.shape, array.dtype)
        self.arrays[value] = array
        if coded:
            self.coded.add(value)
        return value

    def program(self, inputs: Sequence[Value], outputs: Any) -> Program:
        """The equations so far, with the weights that they read."""
        outputs = tuple(outputs)
        read = [operand for equation in self.equations for operand in equation.inputs]
        read += [operand for _, operand in outputs]
        weights = {value.name: value for value in read if value in self.arrays and value not in self.made}
        named = tuple(weights[name] for name in sorted(weights))
        arrays = {value.name: self.arrays[value] for value in named}
        return Program(self.name, tuple(inputs), named, tuple(self.equations), outputs, arrays)


def _are_sized(avals: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for aval in avals for size in aval.shape)


def _is_users(file: str) -> bool:
    return not file.startswith(_LIBRARIES) and not file.startswith("<")


def _user_frame(equation: Any) -> tuple[str, str] | None:
    """What the cell's code calls the result of an equation and where that stands, if it is known."""
    traced = equation.source_info.traceback
    for frame in traced.frames if traced is not None else ():
        if _is_users(frame.file_name):
            names = _names_of_lines(frame.file_name)
            hint = names.get(frame.line_num, "value")
            return hint, f"{pathlib.PurePath(frame.file_name).name}:{frame.line_num}"
    return None


def _line_of(error: TracebackType | None) -> str:
    """The innermost line of an error that is the cell's."""
    frames: list[tuple[FrameType, int]] = list(traceback.walk_tb(error))
    places = [(frame.f_code.co_filename, line) for frame, line in frames if _is_users(frame.f_code.co_filename)]
    return f"{pathlib.PurePath(places[-1][0]).name}:{places[-1][1]}" if places else "unknown line"


@functools.cache
def _names_of_lines(file: str) -> dict[int, str]:
    """For each line of an assignment to one name, that name; for each line of another statement, its function's."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.ClassDef):
                inside = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", child.name).lower()
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
