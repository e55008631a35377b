"""The JSON of ``tvmdet detect``, written image by image: any number of images fits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tvmdet.cli.files import make_folder, written_whole

__all__ = ["Records", "open_records"]


class Records:
    """One JSON object whose list ``images`` is written entry by entry."""

    def __init__(self, file: TextIO, head: Mapping[str, Any]) -> None:
        """Writes what comes before the list.

        Args:
            file: Where to write.
            head: The object's other entries.
        """
        self._file = file
        self._first = True
        opening = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        self._file.write(f'{opening},\n "images": [')

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes one entry on a line of its own."""
        self._file.write("\n" if self._first else ",\n")
        self._file.write(f"  {json.dumps(record, ensure_ascii=False)}")
        self._first = False

    def close(self) -> None:
        """Writes what comes after the list."""
        self._file.write("\n ]\n}\n")


@contextmanager
def open_records(destination: str | None, head: Mapping[str, Any]) -> Iterator[Records | None]:
    """Yields where to put the records, or None when nobody wants them.

    Args:
        destination: A file, which appears when all records are in it; ``-`` for stdout.
        head: Entries beside ``images``.

    Raises:
        InputError: The file cannot be written.
    """
    if destination is None:
        yield None
    elif destination == "-":
        records = Records(sys.stdout, head)
        yield records
        records.close()
    else:
        path = Path(destination)
        make_folder(path.parent, "--json")
        with (
            written_whole(path, "--json") as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            records = Records(file, head)
            yield records
            records.close()
