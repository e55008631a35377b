"""Whether a repetition could have found a slow-down of a given size at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tvmdet.report.changes import Change
from tvmdet.report.result_format import Result
from tvmdet.report.statistics import FEWEST_ROUNDS

__all__ = ["missed", "undetectable"]

_OF_THE_MACHINE = ("busy", "throttled")


def missed(seen: Sequence[float | None]) -> str:
    """Returns which slow-downs a set of undecided comparisons could have missed, in words.

    Args:
        seen: The smallest change, as a share, that each would have called; None where none would.
    """
    known = [share for share in seen if share is not None]
    return "one of any size" if len(known) < len(seen) else f"one below {max(known):.0%}"


def undetectable(changes: Sequence[Change], now: Result, sees: float) -> Iterator[str]:
    """Yields why a slow-down would have been missed, in words; nothing where it would be called.

    Args:
        changes: How the times relate to the recorded ones.
        now: The repetition.
        sees: The slow-down, as a share of the time.
    """
    times = [change for change in changes if change.measure == "time"]
    for table in now.tables:
        where = f"{table.what}, batch {table.batch_size}"
        if not any(change.what == where for change in times):
            yield f"{where}: tvmdet has no time both then and now"
        for finding in table.disturbance.findings:
            if finding.startswith(_OF_THE_MACHINE):
                yield f"{where}: cannot tell, {finding}"
    for change in times:
        if change.doubt.startswith(_OF_THE_MACHINE):
            continue  # a finding of the table
        if change.doubt:
            yield f"{change.what}: cannot tell, {change.doubt}"
        elif change.could_see is None:
            yield f"{change.what}: fewer than {FEWEST_ROUNDS} rounds, then or now, show nothing"
        # What is faster beyond noise is not slower by anything.
        elif change.could_see > sees and change.verdict == "undecided":
            yield (
                f"{change.what}: a slow-down of {sees:.1%} could have been missed: it had "
                f"to be {change.could_see:.1%} to be seen"
            )
