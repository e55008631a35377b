"""Results side by side: one model's targets, batches, precisions and rivals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.report.pages.baseline import Change, changes
from tvmdet.report.pages.drift import drifts
from tvmdet.report.pages.rows import is_empty, profiles_of, runs_of
from tvmdet.report.pages.runs import Profiled, Run, Source
from tvmdet.report.result_subject import ModelFacts

__all__ = ["Comparison", "ModelPart", "compare_sources"]


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """What was found of one model.

    Attributes:
        model: Which.
        runs: Every contestant of every table, in the order of the matrix.
        profiles: Kernels per place.
        sources: The results that this comes from.
        not_run: Targets that the compiled files have code for and nobody ran, with the reason.
        changes: How runs relate to those of earlier results.
        drifts: Where the machine was another one in some session than in others, in words.
        without_figures: Results with nothing to show, and what they lack.
    """

    model: ModelFacts
    runs: tuple[Run, ...]
    profiles: tuple[Profiled, ...]
    sources: tuple[Source, ...]
    not_run: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    drifts: tuple[str, ...] = ()
    without_figures: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[Run, ...]:
        """Rows of tvmdet itself."""
        return tuple(run for run in self.runs if run.is_ours)

    @property
    def rivalries(self) -> tuple[Run, ...]:
        """Rows of rivals that tvmdet was held against."""
        return tuple(run for run in self.runs if run.over_rival is not None)

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What became slower beyond doubt, or wrong."""
        return tuple(change for change in self.changes if change.is_regression)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that a report shows.

    Attributes:
        models: One part each, by name.
        prices: Of an hour of a machine, by target; over those in the results.
        baseline: Files of the earlier results; empty where none were given.
    """

    models: tuple[ModelPart, ...]
    prices: Mapping[str, float] = field(default_factory=dict)
    baseline: tuple[str, ...] = ()

    def cost_per_1000(self, run: Run) -> float | None:
        """Returns what 1,000 images cost, in the unit of the prices.

        One process that is busy all the time has the machine for itself: price of an hour, over
        the images of an hour at the median latency.
        """
        price, rate = self.prices.get(run.place.target, run.price_per_hour), run.images_per_s
        return None if price is None or rate is None else price / (rate * 3600.0) * 1000.0

    def prices_of(self, part: ModelPart) -> str:
        """Returns the prices that costs of a model come from, in words; empty without any."""
        told: dict[str, None] = {}
        for run in part.ours:
            name = run.place.target
            if name in self.prices:
                told[f"{name} {self.prices[name]:g}"] = None
            elif run.price_per_hour is not None:
                told[f"{name} {run.price_per_hour:g} {run.currency}".strip()] = None
        return ", ".join(told)


def compare_sources(
    sources: Sequence[Source],
    *,
    group: bool = False,
    prices: Mapping[str, float] | None = None,
    baseline: Sequence[Source] = (),
) -> Comparison:
    """Puts results side by side.

    Args:
        sources: At least one.
        group: Whether several models may be in one report, one part each.
        prices: Of an hour of a machine, by target.
        baseline: Earlier results to hold these against.

    Raises:
        InputError: There are no results, none with a figure, several models without ``group``, or
            a price of a target that no result has.
    """
    if not sources:
        raise InputError("there are no results to report; `tvmdet bench --json FILE` writes one")
    if all(is_empty(source.result) for source in sources):
        raise InputError(
            f"{counted(len(sources), 'result')} without a figure: {', '.join(map(_empty, sources))}"
            "; measure with `tvmdet bench FILE.tvmdet --json FILE.json` where the code can run"
        )
    by_model: dict[str, list[Source]] = {}
    for source in sources:
        by_model.setdefault(source.model_key, []).append(source)
    if len(by_model) > 1 and not group:
        raise InputError(_mixed(by_model))
    _check_prices(prices or {}, sources)
    parts = [_part(of_model, baseline) for of_model in by_model.values()]
    return Comparison(
        models=tuple(sorted(parts, key=lambda part: (part.model.name, part.model.sha256 or ""))),
        prices=dict(prices or {}),
        baseline=tuple(dict.fromkeys(source.file for source in baseline)),
    )


def _empty(source: Source) -> str:
    return (
        f"{source.file} holds no table of times and no counts of emulated code, for "
        f"{source.result.target.name}"
    )


def _check_prices(prices: Mapping[str, float], sources: Sequence[Source]) -> None:
    targets = sorted({source.result.target.name for source in sources})
    unknown = sorted(set(prices).difference(targets))
    if unknown:
        raise InputError(
            f"--price names {unknown[0]}, and no result is of it; they are of {', '.join(targets)}"
        )


def _mixed(by_model: Mapping[str, Sequence[Source]]) -> str:
    lines = [
        f"  {_told(of_model[0].result.model)}: " + ", ".join(source.file for source in of_model)
        for of_model in by_model.values()
    ]
    return (
        f"these results are of {len(by_model)} different models, whose latencies do not compare:\n"
        + "\n".join(lines)
        + "\nwrite one report for each, or give --group for one report with a part for each"
    )


def _told(model: ModelFacts) -> str:
    digest = f" (sha256 {model.sha256[:12]})" if model.sha256 else ""
    return f"{model.name}{digest}"


def _part(sources: Sequence[Source], baseline: Sequence[Source]) -> ModelPart:
    runs = _distinct(run for source in sources for run in runs_of(source))
    earlier = [
        run
        for source in baseline
        if source.model_key == sources[0].model_key
        for run in runs_of(source)
    ]
    return ModelPart(
        model=sources[0].result.model,
        runs=tuple(sorted(runs, key=_order)),
        profiles=tuple(profile for source in sources for profile in profiles_of(source)),
        sources=tuple(sources),
        not_run=_not_run(sources, runs),
        changes=changes(sorted(runs, key=_order), earlier),
        drifts=tuple(drifts(runs)),
        without_figures=tuple(_empty(source) for source in sources if is_empty(source.result)),
    )


def _distinct(runs: Iterable[Run]) -> list[Run]:
    """Drops what several results say alike of emulated code; timed rows all stay."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        kept.setdefault(run.key if run.emulation is not None else (run.file, *run.key), run)
    return list(kept.values())


def _not_run(sources: Sequence[Source], runs: Sequence[Run]) -> dict[str, str]:
    """Returns the targets that compiled files have code for and no result is of, with why."""
    ran = {run.place.target for run in runs}
    return {
        member.target: member.reason or "never run"
        for source in sources
        for member in source.result.members
        if member.target not in ran
    }


def _order(run: Run) -> tuple[object, ...]:
    """End to end first, as a user feels it; what was timed in turn together, tvmdet first."""
    return (
        run.what != "end to end",
        run.place,
        run.batch_size,
        run.file,
        not run.is_ours,
        run.median_ms or float("inf"),
        run.side,
    )
