"""Targets: each turns a frozen cell into an optimizer for one framework."""

from ._export import emitted_text as emitted_text, export as export
from ._interface import AbstractExporter as AbstractExporter
from ._targets import (
    exporter_of as exporter_of,
    register_target as register_target,
    targets as targets,
)
from ._verify import exports_in as exports_in, verify_export as verify_export
