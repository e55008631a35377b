"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tvmdet.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

__all__ = ["Bar", "Phases"]

_QUIET_S = 2.0  # shorter work says nothing where there is no terminal
_LINE_EVERY_S = 10.0


class Phases:
    """Names what is being done, one phase after the other, each with its time when done."""

    def __init__(self) -> None:
        """Starts with no phase."""
        self._phase = ""
        self._started = self._said = time.monotonic()
        self._status: Status | None = None

    def __call__(self, phase: str) -> None:
        """Ends the phase before and begins this one."""
        self._end_phase()
        self._phase, self._started = phase, time.monotonic()
        self._said = self._started
        console = output.stderr()
        if console.is_terminal:
            from rich.text import Text

            self._status = console.status(Text(phase), spinner="dots")
            self._status.start()
        else:
            console.print(f"{phase} ...", soft_wrap=True)

    def tell(self, step: str) -> None:
        """Says what step a long phase begins, at most every ten seconds without a terminal.

        From any thread.

        Args:
            step: What begins now.
        """
        status, phase = self._status, self._phase
        if status is not None:
            from rich.text import Text

            status.update(Text(f"{phase}: {step}"))
            return
        now = time.monotonic()
        if phase and now - self._said > _LINE_EVERY_S:
            self._said = now
            seconds = now - self._started
            output.stderr().print(f"{phase}: {seconds:.0f} s, {step}", soft_wrap=True)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the last phase."""
        self._end_phase(broken=kind is not None)

    def _end_phase(self, *, broken: bool = False) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
            if not broken:
                took = time.monotonic() - self._started
                output.stderr().print(f"{self._phase}  {took:.1f} s", style="dim", soft_wrap=True)
        self._phase = ""


class Bar:
    """Says how far a long piece of work has come."""

    def __init__(self, what: str, *, total: float | None = None) -> None:
        """Takes what is being done.

        Args:
            what: For people, such as ``images``.
            total: What :meth:`update` counts up to; None where nobody knows.
        """
        self._what = what
        self._total = total
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        """Begins to show."""
        if output.stderr().is_terminal:
            self._progress = _live_progress()
            self._task = self._progress.add_task(self._what, total=self._total, text="")
            self._progress.start()
        return self

    def update(self, done: float, text: str) -> None:
        """Shows that ``done`` of the total is done.

        Args:
            done: In the unit of ``total``.
            text: The state in words.
        """
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, text=text)
            return
        now = time.monotonic()
        if now - self._started > _QUIET_S and now - self._said > _LINE_EVERY_S:
            self._said = now
            output.stderr().print(f"{self._what}: {text}", soft_wrap=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the live line away."""
        if self._progress is not None:
            self._progress.stop()


def _live_progress() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        # On a narrow terminal the end of the text goes, not the bar.
        TextColumn(
            "{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        expand=True,
        console=output.stderr(),
        transient=True,
    )
