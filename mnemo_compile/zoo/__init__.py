"""The zoo: frozen cells by name and version, in the package, in a folder or behind a URL."""

from ._fetch import EMBEDDED as EMBEDDED, open_zoo as open_zoo, Zoo as Zoo
from ._index import Entry as Entry, Index as Index, INDEX_FILE as INDEX_FILE
from ._publish import publish as publish
from ._reference import (
    is_reference as is_reference,
    parse_reference as parse_reference,
    Reference as Reference,
    Version as Version,
)
