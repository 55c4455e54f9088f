"""Markdown of the repository: one sentence per line, tables of short cells, the project's words."""

import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("benchmarks", "docs", "examples", "mnemo_compile", "tests")

CELL_WORDS = 12
"""Words of a table's cell, at most. A code span is one word."""

ABBREVIATIONS = ("al.", "cf.", "e.g.", "etc.", "i.e.", "vs.")

AVOIDED = {
    r"opponents?\b": "baseline",
    r"mend(s|ed|ing)?\b": "fix",
    r"judg(e[sd]?|ing|e?ments?)\b": "evaluate, evaluation",
    r"besides\b": "also",
    r"told\b": "who knows or receives what",
    r"(bytes|numbers|operations)( of state)? an? (parameter|coordinate|tensor|chunk)\b": "per parameter",
    r"by `(valid|unseen|long|large|train)`": "on the suite",
}
"""Patterns of words that the project does not use, and what it says instead."""


def markdown_files() -> list[pathlib.Path]:
    """Of the repository, relative to its root."""
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path.relative_to(ROOT) for path in paths if "node_modules" not in path.parts)


def problems(text: str) -> list[str]:
    """What is wrong with a Markdown text, by line."""
    found = []
    lines = list(prose(text))
    for place, (number, kind, line) in enumerate(lines):
        following = lines[place + 1] if place + 1 < len(lines) else None
        found.extend(f"{number}: {problem}" for problem in line_problems(kind, line, goes_on(number, following)))
    return found


def prose(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, kind and text of each line that holds prose: a line of a `table`, an `item`, or a `paragraph`."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if mark := re.match(r"```+|~~~+", stripped):
            fence = "" if fence and stripped.startswith(fence) else fence or mark[0]
        elif fence or not stripped or re.match(r"#+ |\[[^\]]+\]: |<!--|-{3,}$", stripped):
            continue
        elif stripped.startswith("|"):
            yield number, "table", stripped
        else:
            item = re.match(r"([*+-]|\d+[.)]) +", stripped)
            body = re.sub(r"^(> ?)+", "", stripped[item.end() :] if item else stripped)
            yield number, "item" if item or line[0] == " " else "paragraph", ("* " if item else "") + body


def goes_on(number: int, following: tuple[int, str, str] | None) -> bool:
    """Whether the next line of prose continues the block of line `number`."""
    if following is None:
        return False
    next_number, kind, line = following
    return next_number == number + 1 and kind != "table" and not line.startswith("* ")


def line_problems(kind: str, line: str, continued: bool) -> Iterator[str]:
    """What is wrong with a line of prose; `continued` says whether the next line belongs to its block."""
    plain = plain_text(line.removeprefix("* "))
    for pattern, better in AVOIDED.items():
        # Code keeps its words, so only a pattern about code looks at it.
        if match := re.search(rf"\b({pattern})", line if "`" in pattern else plain, re.IGNORECASE):
            yield f"{match[0]!r} is not a word of the project, which says: {better}"
    if kind == "table":
        for cell in re.split(r"(?<!\\)\|", plain.strip("|")):
            if len(cell.split()) > CELL_WORDS or sentences(cell) > 1:
                yield f"a table's cell is a paragraph: {cell.strip()}"
        return
    if sentences(plain) > 1:
        yield f"more than one sentence: {line}"
    if continued and not re.search(r"[.?!][)\"*_]*$", plain):
        yield f"a line ends inside a sentence: {line}"
    if kind == "paragraph" and not continued and not re.search(r"[.?!:][)\"*_]*$|^(Code|Image)$", plain):
        yield f"a paragraph ends inside a sentence: {line}"


def plain_text(line: str) -> str:
    """A line without code, addresses and images."""
    line = re.sub(r"(`+).+?\1", "Code", line)
    line = re.sub(r"!\[[^\]]*\]\([^)]*\)", "Image", line)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)


def sentences(plain: str) -> int:
    """How many sentences a line holds: one more than the ends of sentences inside it."""
    ends = re.finditer(r"(\S*[.?!])[)\"*_]*\s+(?=\S)", plain)
    return 1 + sum(not re.fullmatch(r"[A-Z]\.", end[1]) and not end[1].endswith(ABBREVIATIONS) for end in ends)


@pytest.mark.parametrize("path", markdown_files(), ids=str)
def test_markdown_has_a_sentence_per_line_and_the_words_of_the_project(path: pathlib.Path) -> None:
    assert not problems((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "A sentence that is\nwrapped.",
        "One sentence. Another one.",
        "One (with a bracket.) `code` begins another.",
        "A sentence without an end",
        "* An item.\n  Its second sentence is\n  wrapped.",
        "* An item. Another sentence.",
        "| a | b |\n|---|---|\n| 1 | " + "word " * 13 + "|",
        "| a |\n|---|\n| It is. It was. |",
        "It beats every opponent.",
        "It keeps 8 bytes a parameter.",
        "It is better by `valid`.",
        "```\ncode\n```\nA sentence that is\nwrapped.",
    ],
)
def test_the_check_finds_what_is_wrong(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "One sentence.\nAnother one, after Jain et al. 2023, e.g. by D. Knuth, with 0.5 and v1.2.",
        "# A heading without an end",
        "A list follows:\n\n* one\n* two, which is said.\n  A second sentence.\n* `three. Four`",
        "A list follows:\n* one\n* two",
        "```\nno sentence. Two\nlines\n```",
        "`mnemo eval REF`\n\n![plot. Of a run](plot.svg)",
        "| a | b |\n|---|---|\n| `a command with many words that counts as one word and not as fifteen` | 1.5 ± 0.2 |",
        "[name]: https://example.org/a. b",
    ],
)
def test_the_check_accepts_what_is_right(text: str) -> None:
    assert not problems(text)
