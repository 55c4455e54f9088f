"""`mnemo zoo`."""

import pathlib

import rich_click as click

from ..errors import MnemoError, UsageError
from ._console import json_option, message, print_facts, print_json, print_reports, print_table, zoo_option


@click.group()
def zoo() -> None:
    """List, show, publish and verify the cells of a zoo.

    \b
    Example:
      mnemo zoo list
    """


@zoo.command("list")
@zoo_option
@json_option
def list_(location: str | None, as_json: bool) -> None:
    """List the cells and their versions.

    \b
    Example:
      mnemo zoo list --zoo https://example.org/zoo
    """
    from ..zoo import open_zoo

    index = open_zoo(location).index
    entries = [entry for name in index.names for entry in index.versions(name)]
    if as_json:
        print_json([entry.model_dump(mode="json", exclude={"files"}) for entry in entries])
        return
    import rich.markup
    import rich.table

    table = rich.table.Table("name", "version", "digest", "description")
    for entry in entries:
        table.add_row(entry.name, entry.version, entry.digest[:12], rich.markup.escape(entry.description))
    print_table(table)


@zoo.command()
@click.argument("ref")
@zoo_option
@json_option
def show(ref: str, location: str | None, as_json: bool) -> None:
    """Show a cell of a zoo: its versions, the size of its state, and how it was meta-trained.

    \b
    Example:
      mnemo zoo show mnemosyne-tiny
    """
    from ..frozen import Manifest, MANIFEST_FILE, read_document
    from ..zoo import open_zoo, parse_reference

    opened = open_zoo(location)
    entry = opened.index.find(parse_reference(ref))
    manifest = read_document(Manifest, opened.read(entry, MANIFEST_FILE), f"the manifest of {entry.reference}")
    versions = [other.version for other in opened.index.versions(entry.name)]
    if as_json:
        print_json(entry.model_dump(mode="json") | {"versions": versions, "manifest": manifest.model_dump(mode="json")})
        return
    training = manifest.training
    print_facts(
        {
            "name": entry.name,
            "version": entry.version,
            "versions": ", ".join(versions),
            "digest": entry.digest,
            "description": entry.description,
            "license": manifest.license,
            "bytes to fetch": sum(record.size for record in entry.files.values()),
            "state bytes per parameter": f"{manifest.state_bytes:g}",
            "made by": training.command,
            "meta-steps": training.meta_steps,
            "meta-trained on": ", ".join(training.families),
        }
        | {f"figure: {name}": f"{value:.4g}" for name, value in training.figures.items()}
    )


@zoo.command()
@click.argument("run", type=click.Path(path_type=pathlib.Path), metavar="RUN")
@click.option("--name", required=True, help="The cell's name in the zoo.")
@click.option("--version", required=True, help="MAJOR.MINOR.PATCH. A published version is never replaced.")
@click.option("--description", help="One line for the list.")
@zoo_option
@json_option
def publish(
    run: pathlib.Path, name: str, version: str, description: str | None, location: str | None, as_json: bool
) -> None:
    """Add the cell of a run or of a bundle to a zoo in a folder.

    \b
    Example:
      mnemo zoo publish runs/first --name my-optimizer --version 1.0.0 --zoo zoos/mine
    """
    from .._refs import load_folder
    from ..zoo import EMBEDDED, publish

    if location is not None and "://" in location:
        raise UsageError(f"{location} is not a folder; publish into a folder, then copy it to the server")
    folder = pathlib.Path(location) if location is not None else EMBEDDED
    entry = publish(load_folder(run), folder, name=name, version=version, description=description)
    if as_json:
        print_json(entry.model_dump(mode="json"))
    else:
        print(entry.reference)
    message(f"{entry.reference} is in {folder / entry.folder}")


@zoo.command()
@click.argument("ref", required=False)
@zoo_option
@json_option
def verify(ref: str | None, location: str | None, as_json: bool) -> None:
    """Check every file of a zoo, or of one cell, against the index.

    REF may also be the folder of an export, such as build or build/torch. The export is then compared with its cell
    again, on this machine. This runs the code of an exported Python package. A name in the zoo takes precedence over a
    folder of that name; write ./NAME for the folder.

    \b
    Example:
      mnemo zoo verify build/torch
    """
    from ..zoo import is_reference, open_zoo, parse_reference

    if ref is not None and pathlib.Path(ref).is_dir():
        # As everywhere, a name in the zoo takes precedence over a folder.
        if not is_reference(ref) or parse_reference(ref).name not in open_zoo(location).index.names:
            verify_exports(pathlib.Path(ref), as_json)
            return
    opened = open_zoo(location)
    entries = opened.index.entries if ref is None else (opened.index.find(parse_reference(ref)),)
    problems: dict[str, str | None] = {}
    for entry in entries:
        try:
            opened.load(entry)
            problems[entry.reference] = None
        except MnemoError as error:
            problems[entry.reference] = str(error)
    if as_json:
        print_json([{"reference": reference, "problem": problem} for reference, problem in problems.items()])
    else:
        for reference, problem in problems.items():
            print(f"{reference}: {problem or 'intact'}")
    broken = [reference for reference, problem in problems.items() if problem]
    if broken:
        raise MnemoError(f"{len(broken)} of {len(problems)} cells do not match the index: {', '.join(broken)}")


def verify_exports(folder: pathlib.Path, as_json: bool) -> None:
    """Runs the verification of the exports in a folder again."""
    from ..exporters import exports_in, verify_export

    folders = exports_in(folder)
    if not folders:
        raise MnemoError(f"{folder} holds no export (export.json); name a folder that mnemo export wrote")
    reports = [verify_export(each) for each in folders]
    print_reports(reports, as_json)
    for report in reports:
        report.check("export it again")
