"""Packages of cells that this process imports: compiled and verified once, and kept in the cache.

The package of a cell is a submodule, such as `mnemo_compile.compiled.torch_mnemosyne_base_0_7_1_feb5671124e6fb72`. The
name says target, cell, version and digest. So whatever an optimizer's class is part of can be pickled: the process that
unpickles it imports the module, and the finder here takes it from the cache or makes it again.
"""

import sys

from ._finder import Finder, package_of as package_of

sys.meta_path.append(Finder())
