"""`mnemo download`."""

import pathlib

import rich_click as click

from ..errors import UsageError
from ._console import json_option, message, print_json, zoo_option


@click.command()
@click.argument("ref")
@click.option(
    "--out", type=click.Path(path_type=pathlib.Path), metavar="DIR", help="The folder; ./NAME-VERSION by default."
)
@zoo_option
@json_option
def download(ref: str, out: pathlib.Path | None, location: str | None, as_json: bool) -> None:
    """Fetch a cell from a zoo into a folder, which appears once every byte is checked.

    \b
    Example:
      mnemo download mnemosyne-tiny@^1 --out build/tiny --zoo https://example.org/zoo
    """
    from ..zoo import is_reference, open_zoo, parse_reference

    if not is_reference(ref) and pathlib.Path(ref).exists():
        raise UsageError(f"{ref} is a folder; name a cell of a zoo, as listed by: mnemo zoo list")
    reference = parse_reference(ref)
    zoo = open_zoo(location)
    entry = zoo.index.find(reference)
    folder = out if out is not None else pathlib.Path(f"{entry.name}-{entry.version}")
    zoo.download(entry, folder)
    if as_json:
        print_json({"name": entry.name, "version": entry.version, "digest": entry.digest, "folder": str(folder)})
    else:
        print(folder)
    message(f"{entry.reference} is in {folder}")
