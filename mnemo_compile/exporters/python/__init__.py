"""Shared by the Python targets: writes a package that stands alone, and a program as the text of a function."""

from ._literal import literal as literal
from ._load import load_package as load_package
from ._package import package_name as package_name, PythonPackage as PythonPackage
from ._source import (
    bare as bare,
    infix as infix,
    number as number,
    render as render,
    Renderer as Renderer,
    sizes as sizes,
)
