"""The command line, `mnemo`."""

from ._process import main as main
