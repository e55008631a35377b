"""``--json``, the same in every verb: alone it prints JSON, with a file it writes it there too."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.files import check_writable, written_whole

__all__ = ["Json", "check_json", "deliver", "fill_in_stdout", "is_printed", "write_json"]

_OPTION = "--json"
_STDOUT = "-"

Json = Annotated[
    str | None,
    typer.Option(
        _OPTION,
        metavar="[FILE.json]",
        help="Print JSON instead of tables; with a file, write it there beside the tables.",
    ),
]


def fill_in_stdout(words: Sequence[str]) -> list[str]:
    """Returns a command line in which every ``--json`` has a value.

    What follows is its file when the name ends in ``.json``, or ``-`` for the standard output;
    anything else is an argument of the verb. ``--json=FILE`` takes any name.
    """
    filled: list[str] = []
    for at, word in enumerate(words):
        if word == "--":
            return [*filled, *words[at:]]
        filled.append(word)
        following = words[at + 1] if at + 1 < len(words) else ""
        if word == _OPTION and not (following == _STDOUT or following.lower().endswith(".json")):
            filled.append(_STDOUT)
    return filled


def is_printed(json: str | None) -> bool:
    """Whether JSON is printed, and nothing else may be."""
    return json == _STDOUT


def check_json(json: str | None, read: Iterable[str | Path | None] = ()) -> None:
    """Tries whether the file could be written, before the work whose result goes there.

    Args:
        json: What was typed.
        read: Files that the verb reads, or writes by another option; None for none.

    Raises:
        InputError: It could not be written.
        typer.BadParameter: It is one of those that are read.
    """
    check_writable(json, _OPTION, read)


def deliver(json: str | None, value: Mapping[str, Any], tables: Callable[[], None]) -> None:
    """Prints a result: as JSON, or as tables and, where a file is named, as JSON in it.

    Args:
        json: What was typed; None where nothing was.
        value: The result, as plain JSON values.
        tables: Prints it for people.

    Raises:
        InputError: The file cannot be written.
    """
    if is_printed(json):
        output.print_json(value)
        return
    tables()
    if json is not None:
        write_json(json, json_module.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json(json: str, text: str) -> None:
    """Writes a file, all of it or nothing, and says so.

    Raises:
        InputError: The file cannot be written.
    """
    with written_whole(Path(json), _OPTION) as temporary:
        temporary.write_text(text, encoding="utf-8")
    output.stdout().print(f"\neverything in {json}", soft_wrap=True)
