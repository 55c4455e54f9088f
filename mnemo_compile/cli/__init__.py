"""The command line, `mnemo`."""

from ._main import main as main
