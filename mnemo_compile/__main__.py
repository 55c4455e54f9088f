"""`python -m mnemo_compile` is `mnemo`."""

import sys

from .cli import main

sys.exit(main())
