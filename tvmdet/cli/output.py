"""What the verbs print: messages, tables and JSON."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "error",
    "facts",
    "megabytes",
    "milliseconds",
    "next_step",
    "print_json",
    "shown_log",
    "stderr",
    "stdout",
    "table",
    "warning",
]

_WIDE = 240  # columns where there is no terminal: nothing is cut off in a file or a pipe


@functools.cache
def _console(stderr: bool) -> Console:
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            """Lets the error out, to be answered in one place; rich would end the program."""
            raise  # the error that rich is handling

    stream = sys.stderr if stderr else sys.stdout
    # Without markup and highlighting: paths and labels are printed as they are.
    return PlainConsole(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=False,
        width=None if stream.isatty() else _WIDE,
    )


def stdout() -> Console:
    """Returns the console for results."""
    return _console(False)


def stderr() -> Console:
    """Returns the console for progress and problems."""
    return _console(True)


def error(message: str) -> None:
    """Prints why the command failed."""
    # Not through rich, which would wrap the lines: a message is to be searched and copied.
    print(f"error: {message}", file=sys.stderr)


def warning(message: str) -> None:
    """Prints what the user should know though the command goes on."""
    print(f"warning: {message}", file=sys.stderr)


def next_step(*command: object) -> None:
    """Names the next command to run."""
    line = " ".join(_quote(str(word)) for word in command)
    stdout().print(f"\nnext: {line}", style="dim", soft_wrap=True)


def _quote(word: str) -> str:
    # Words in capitals are for the user to fill in.
    return word if word.replace(".", "").isupper() else shlex.quote(word)


def print_json(value: Any) -> None:
    """Prints a value for machines."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def facts(rows: Iterable[tuple[str, object]], title: str | None = None) -> None:
    """Prints pairs of a name and a value, names aligned; rows without a value are left out."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, ""):
            grid.add_row(name, str(value))
    if title:
        stdout().print(title, style="bold")
    stdout().print(grid)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
    gap: bool = False,
) -> None:
    """Prints a table.

    Args:
        columns: Headings.
        rows: One value per column.
        title: A line above.
        right: Columns of numbers, aligned to the right.
        gap: Leave an empty line above.
    """
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(str(value) for value in row))
    if gap:
        stdout().print()
    if title is not None:
        stdout().print(title, style="bold", soft_wrap=True)
    stdout().print(drawn)


def megabytes(count: int) -> str:
    """Returns ``12.3 MB``."""
    return f"{count / 1e6:.1f} MB"


def milliseconds(seconds: float | None) -> str:
    """Returns ``12.3 ms``, or ``?``."""
    return "?" if seconds is None else f"{seconds * 1e3:.4g} ms"


class _Lines(logging.Handler):
    """Prints what the package logs as lines of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record."""
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


@contextmanager
def shown_log(*, debug: bool) -> Iterator[None]:
    """Shows the package's warnings within the block; with ``debug`` everything that it logs."""
    logger = logging.getLogger("tvmdet")
    lines, level = _Lines(), logger.level
    if debug:
        logger.setLevel(logging.DEBUG)
    else:
        lines.setLevel(logging.WARNING)
        # An image that cannot be used is reported by the verb itself.
        lines.addFilter(lambda record: not record.name.startswith("tvmdet.runtime"))
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
