"""Passes: pure functions from a Program to one that means the same and is easier to emit, a file each."""

from ._broadcast_implicitly import broadcast_implicitly as broadcast_implicitly
from ._canonicalise import canonicalise as canonicalise
from ._cse import cse as cse
from ._dce import dce as dce
from ._drop_identities import drop_identities as drop_identities
from ._fold import fold as fold
from ._for_compiler import for_compiler as for_compiler
from ._fuse import fuse as fuse, is_of_tiles as is_of_tiles
from ._inline import inline as inline
from ._literals_last import literals_last as literals_last
from ._pipeline import optimise as optimise, Pass as Pass, PASSES as PASSES, stages as stages
from ._pointwise import is_pointwise as is_pointwise
from ._renumber import renumber as renumber
from ._separate import is_of_chunks as is_of_chunks, separate as separate
from ._taken import taken as taken
from ._transpose_in_einsum import transpose_in_einsum as transpose_in_einsum
from ._unstack import unstack as unstack
