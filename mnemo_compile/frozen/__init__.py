"""Frozen cells: configuration, weights and origin, saved as a bundle of JSON and safetensors files.

Only building a cell imports JAX.
"""

from ._bundle import (
    bundle_bytes as bundle_bytes,
    load_bundle as load_bundle,
    read_identity as read_identity,
    save as save,
)
from ._digest import canonical_digest as canonical_digest
from ._document import (
    AbstractDocument as AbstractDocument,
    dump_document as dump_document,
    first_problem as first_problem,
    read_document as read_document,
)
from ._files import (
    check_file as check_file,
    check_writable as check_writable,
    FileRecord as FileRecord,
    new_folder as new_folder,
    read_file as read_file,
    record_of as record_of,
    replace_file as replace_file,
    Sha256 as Sha256,
    staged_folder as staged_folder,
    write_file as write_file,
    writing as writing,
)
from ._frozen import freeze as freeze, FrozenCell as FrozenCell, rename as rename
from ._identity import Identity as Identity
from ._manifest import (
    CellName as CellName,
    library_versions as library_versions,
    Manifest as Manifest,
    SemanticVersion as SemanticVersion,
    Training as Training,
)
from ._names import (
    BUNDLE_FILES as BUNDLE_FILES,
    BundleFile as BundleFile,
    CELL_FILE as CELL_FILE,
    MANIFEST_FILE as MANIFEST_FILE,
    WEIGHTS_FILE as WEIGHTS_FILE,
)
