"""Short names of rows: no more than tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tvmdet.report.pages.canvas import MARKERS
from tvmdet.report.pages.runs import Place, Run
from tvmdet.report.pages.sessions import session_tags

__all__ = ["Names", "milliseconds"]

_LONGEST = 34


class Names:
    """What places and rows of one model, or of all, are called in charts and tables.

    Attributes:
        sides: An index for each runtime with its precision, the same in all charts of a report:
            it chooses mark, hatching and colour.
    """

    def __init__(self, runs: Sequence[Run], sides: Mapping[str, int]) -> None:
        """Looks at what the rows have in common.

        Args:
            runs: All rows that are told apart.
            sides: See the class.
        """
        self.sides = sides
        self._places = _place_names(dict.fromkeys(run.place for run in runs))
        setups: dict[tuple[Place, str], dict[str, None]] = {}
        for run in runs:
            setups.setdefault((run.place, run.beside), {})[run.file] = None
        self._sessions = {
            (*setup, file): tag
            for setup, files in setups.items()
            if len(files) > 1
            for file, tag in session_tags(files).items()
        }
        counts = Counter(place for place, _ in setups)
        self._mixed = {place for place, count in counts.items() if count > 1}

    def place(self, place: Place) -> str:
        """Returns the target, with the machine and the threads where others have it too."""
        return self._places.get(place, place.target)

    def session(self, place: Place, precision: str, file: str) -> str:
        """Returns what tells a result from others of its place and of tvmdet's precision.

        Empty where there are no others.
        """
        return self._sessions.get((place, precision, file), "")

    def beside(self, run: Run) -> str:
        """Returns what tells a row from those of equal place, runtime and precision.

        Of a rival that is what tvmdet computed in beside it. Empty where there are no others.
        """
        mixed = not run.is_ours and run.place in self._mixed
        session = self.session(run.place, run.beside, run.file)
        return ", ".join(one for one in (f"beside {run.beside}" * mixed, session) if one)

    def where(self, run: Run) -> str:
        """Returns the place, with what tells the row from others there."""
        return _with(self.place(run.place), self.beside(run))

    def label(self, run: Run) -> str:
        """Returns runtime and precision, with what tells the row from others of its place."""
        return _with(run.side, self.beside(run))

    def row(self, run: Run) -> str:
        """Returns place, runtime and precision, with what tells the row from others."""
        return f"{self.place(run.place)} · {self.label(run)}"

    def side(self, run: Run) -> int:
        """Returns the index of the run's marks."""
        return self.sides.get(run.side, 0)

    @classmethod
    def of_report(cls, models: Sequence[Sequence[Run]]) -> tuple[list[Names], Names]:
        """Returns names for the rows of each model of a report, and for all rows together."""
        every = [run for runs in models for run in runs]
        sides = cls.number_sides(every)
        each, shared = [cls(runs, sides) for runs in models], cls(every, sides)
        # Results of several models are no sessions of one setup.
        shared._sessions = {key: tag for one in each for key, tag in one._sessions.items()}
        shared._mixed = {place for one in each for place in one._mixed}
        return each, shared

    @staticmethod
    def number_sides(runs: Iterable[Run]) -> dict[str, int]:
        """Returns an index for each runtime with its precision, tvmdet's first."""
        found = dict.fromkeys(run.side for run in sorted(runs, key=_side_order))
        return {side: index % len(MARKERS) for index, side in enumerate(found)}


def _with(name: str, told: str) -> str:
    return f"{name} ({told})" if told else name


def _side_order(run: Run) -> tuple[object, ...]:
    return (not run.is_ours, run.runtime, run.precision != "fp32", run.precision)


def milliseconds(value: float | None) -> str:
    """Returns three digits or more: ``0.0123``, ``1.23``, ``12.3``, ``1,234``."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _place_names(places: Iterable[Place]) -> dict[Place, str]:
    known = list(places)
    targets = Counter(place.target for place in known)
    machines = Counter((place.target, place.machine) for place in known)
    names = {}
    for place in known:
        name = place.target
        if targets[place.target] > 1 and machines[place.target, place.machine] < targets[name]:
            name += f", {_short(place.machine)}"
        if machines[place.target, place.machine] > 1:
            name += f", {place.threads} thr."
        names[place] = name
    return names


def _short(machine: str) -> str:
    """Cuts a long name in the middle: what tells machines apart is at either end."""
    if len(machine) <= _LONGEST:
        return machine
    end = _LONGEST // 3
    return f"{machine[: _LONGEST - end]}…{machine[-end:]}"
