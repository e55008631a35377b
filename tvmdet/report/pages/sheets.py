"""The tables of a report, whoever prints them: columns that sort, and rows of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "Column", "Sheet"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading.

    Attributes:
        name: As short as can be.
        hint: What it means.
        is_number: Whether it is aligned to the right.
        in_brief: Whether a short form of the report has it.
        is_wide: Whether its texts are long, and take several lines rather than a wide column.
    """

    name: str
    hint: str = ""
    is_number: bool = True
    in_brief: bool = True
    is_wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value.

    Attributes:
        text: What is shown; empty where there is no value.
        value: What it is sorted by; None sorts last.
        kind: A style class: ``good``, ``bad``, ``unsure`` or ``muted``.
    """

    text: str
    value: float | str | None = None
    kind: str = ""

    @staticmethod
    def of(text: str, value: float | str | None = None, kind: str = "") -> Cell:
        """Returns a cell that sorts by its value, or by its text."""
        return Cell(text=text, value=(text or None) if value is None else value, kind=kind)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table.

    Attributes:
        title: A line above.
        columns: Headings.
        rows: One cell per column.
        strong: Rows, by their index, that stand out.
        below: Lines under it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()
    below: tuple[str, ...] = ()

    def without_empty_columns(self) -> Sheet:
        """Returns the table less the columns that no row has a text in."""
        kept = [i for i in range(len(self.columns)) if any(row[i].text for row in self.rows)]
        return self._with(kept)

    def brief(self) -> Sheet:
        """Returns the table with the columns of the short form."""
        return self._with([i for i, column in enumerate(self.columns) if column.in_brief])

    def _with(self, kept: Sequence[int]) -> Sheet:
        return Sheet(
            title=self.title,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            strong=self.strong,
            below=self.below,
        )
