"""The matrix: target x batch x precision, with every runtime that was measured beside tvmdet."""

from __future__ import annotations

from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.rivalry import fastest_rival, verdict_cell
from tvmdet.report.pages.runs import PERCENTILES, Run, ratio_text
from tvmdet.report.pages.sheets import Cell, Column, Sheet

__all__ = ["brief_sheet", "matrix_sheet"]

_SPARSE = "*"
_PARITY_HINT = (
    "outputs against ONNX Runtime's; end to end a rival's boxes against tvmdet's, which were "
    "compared with ONNX Runtime's when the file was compiled"
)

_COLUMNS = (
    Column(name="target", hint="whose code ran, and where", is_number=False),
    Column(
        name="what",
        hint="end to end: image file in, boxes out; network: arrays in, arrays out",
        is_number=False,
    ),
    Column(name="batch", hint="images of one call"),
    Column(name="runtime", is_number=False, in_brief=False),
    Column(name="precision", is_number=False),
    Column(name="p50 ms", hint="median of a call"),
    Column(
        name="tvmdet / this",
        hint="median of the rounds' ratios with its 95 % interval",
        is_number=False,
    ),
    Column(
        name="tvmdet is",
        hint="undecided inside the noise; what a difference would have had to be to be seen",
        is_number=False,
    ),
    *(
        Column(name=f"{name} ms", hint=f"{name[1:]} % of calls were faster", in_brief=brief)
        for name, brief in (("p90", True), ("p95", False), ("p99", True), ("p99.9", False))
    ),
    Column(name="images/s", hint="batch over median"),
    Column(name="cost/1,000", hint="of 1,000 images, one busy process having the machine"),
    Column(name="AP", hint="COCO's average precision of boxes, %"),
    Column(name="parity", hint=_PARITY_HINT, is_number=False, is_wide=True),
    Column(name="size MB", hint="code and weights in the compiled file"),
    Column(name="memory MB", hint="most resident memory of the process"),
    Column(
        name="counted",
        hint="instructions of one call under emulation, and cycles predicted from them",
        is_number=False,
        is_wide=True,
    ),
)

_OVER, _VERDICT = (
    next(column for column in _COLUMNS if column.name == name)
    for name in ("tvmdet / this", "tvmdet is")
)
_RIVAL = Column(name="fastest rival", is_number=False)
_AFTER_VERDICT = _COLUMNS.index(_VERDICT) + 1
_BRIEF = tuple(
    column
    for column in (*_COLUMNS[:_AFTER_VERDICT], _RIVAL, *_COLUMNS[_AFTER_VERDICT:])
    if column.in_brief
)


def matrix_sheet(part: ModelPart, comparison: Comparison, names: Names) -> Sheet:
    """Returns the matrix of one model; columns that nothing fills are left out."""
    rows = [_row(run, comparison, names) for run in part.runs]
    rows += [_not_run(target, reason) for target, reason in part.not_run.items()]
    below = []
    if any(run.is_timed and run.is_sparse("p99.9") for run in part.runs):
        below.append(f"{_SPARSE} fewer calls than the percentile needs: about the slowest of them")
    if any(run.emulation is not None for run in part.runs):
        below.append(
            "Emulated code has no latency: instructions are counted, and cycles predicted by a "
            "model of the named core, which no hardware has checked"
        )
    if comparison.prices_of(part):
        below.append(f"Prices of an hour: {comparison.prices_of(part)}")
    return Sheet(
        title="Target x batch x precision",
        columns=_COLUMNS,
        rows=tuple(rows),
        strong=frozenset(i for i, run in enumerate(part.runs) if run.is_ours),
        below=tuple(below),
    ).without_empty_columns()


def brief_sheet(part: ModelPart, comparison: Comparison, names: Names) -> Sheet:
    """Returns the matrix without rows of rivals: the fastest one stands in tvmdet's row."""
    rows = []
    for run in part.ours:
        rival = fastest_rival(run, part.runs)
        ratio = None if rival is None else rival.over_rival
        cells = dict(zip(_COLUMNS, _row(run, comparison, names), strict=True))
        told = "" if rival is None else f"{rival.side} {milliseconds(rival.median_ms)} ms"
        cells[_OVER] = Cell.of("" if ratio is None else ratio_text(ratio))
        cells[_VERDICT] = verdict_cell(ratio)
        cells[_RIVAL] = Cell.of(told)
        rows.append(tuple(cells[column] for column in _BRIEF))
    rows += [_brief_not_run(target, reason) for target, reason in part.not_run.items()]
    whole = matrix_sheet(part, comparison, names)
    found = Sheet(title=whole.title, columns=_BRIEF, rows=tuple(rows), below=whole.below)
    return found.without_empty_columns()


def _row(run: Run, comparison: Comparison, names: Names) -> tuple[Cell, ...]:
    rate, cost = run.images_per_s, comparison.cost_per_1000(run)
    median, *tail = _latencies(run)
    shown_rate = "" if rate is None else f"{rate:,.1f}"
    return (
        Cell.of(names.where(run)),
        Cell.of(run.what),
        Cell.of(str(run.batch_size), run.batch_size),
        Cell.of(run.runtime),
        Cell.of(run.precision),
        median,
        Cell.of("", None)
        if run.over_rival is None
        else Cell.of(ratio_text(run.over_rival), run.over_rival.ratio),
        verdict_cell(run.over_rival),
        *tail,
        Cell.of(shown_rate, rate),
        Cell.of("" if cost is None else f"{cost:.3g}", cost),
        Cell.of("" if run.accuracy is None else f"{100 * run.accuracy:.1f}", run.accuracy),
        _parity(run),
        Cell.of(_megabytes(run.size_bytes), run.size_bytes),
        Cell.of(_megabytes(run.memory_bytes), run.memory_bytes),
        Cell.of(_counted(run)),
    )


def _latencies(run: Run) -> list[Cell]:
    if not run.is_timed:
        why = run.state if run.emulation is not None else _short_problem(run)
        return [Cell.of(why, float("inf"), "muted")] + [Cell.of("")] * (len(PERCENTILES) - 1)
    return [
        Cell.of(milliseconds(ms) + (_SPARSE if run.is_sparse(name) else ""), ms)
        for name, ms in run.percentiles_ms.items()
    ]


def _short_problem(run: Run) -> str:
    return run.problem.split(":", 1)[0] or "not measured"


def _parity(run: Run) -> Cell:
    if run.is_right is None:
        return Cell.of(run.parity, kind="muted")
    word, kind = ("right", "good") if run.is_right else ("wrong", "bad")
    return Cell.of(f"{word}, {run.parity}" if run.parity else word, kind=kind)


def _counted(run: Run) -> str:
    counts = run.emulation
    if counts is None:
        return ""
    told = f"{_millions(counts.instructions)} M instructions"
    if counts.predicted_cycles is not None:
        told += f"; {_millions(counts.predicted_cycles)} M cycles predicted for {counts.model}"
    return told


def _millions(count: float) -> str:
    return f"{count / 1e6:,.{0 if count >= 1e7 else 2}f}"


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.1f}"


def _brief_not_run(target: str, reason: str) -> tuple[Cell, ...]:
    cells = dict(zip(_COLUMNS, _not_run(target, reason), strict=True))
    cells[_RIVAL] = Cell.of("")
    return tuple(cells[column] for column in _BRIEF)


def _not_run(target: str, reason: str) -> tuple[Cell, ...]:
    first = (Cell.of(target), *([Cell.of("")] * 4), Cell.of("not run", float("inf"), "muted"))
    rest = [Cell.of("")] * (len(_COLUMNS) - len(first) - 1)
    return (*first, *rest, Cell.of(reason, kind="muted"))
