"""Results side by side: what belongs in one report, and what is said of what nobody ran."""

from __future__ import annotations

import re
from dataclasses import replace

import made_results
import numpy as np
import pytest

from tvmdet.errors import InputError
from tvmdet.report.pages.chart_accuracy import Trade, accuracy_chart, pareto_front
from tvmdet.report.pages.charts import overview_figures
from tvmdet.report.pages.comparison import Comparison, compare_sources
from tvmdet.report.pages.matrix import brief_sheet, matrix_sheet
from tvmdet.report.pages.more_sheets import conditions
from tvmdet.report.pages.names import Names
from tvmdet.report.pages.overview import overview_sheet
from tvmdet.report.pages.runs import Source
from tvmdet.report.pages.sheets import Sheet
from tvmdet.report.pages.summary import cards, doubts, findings
from tvmdet.report.result_format import Result
from tvmdet.report.result_subject import Prices


def source(result: Result, file: str = "a.json") -> Source:
    return Source(file=file, result=result)


def matrix(comparison: Comparison, *, brief: bool = False) -> Sheet:
    (part,) = comparison.models
    names = Names(part.runs, Names.number_sides(part.runs))
    return (brief_sheet if brief else matrix_sheet)(part, comparison, names)


def cells(sheet: Sheet, **wanted: str) -> list[dict[str, str]]:
    found = []
    for row in sheet.rows:
        named = {c.name: cell.text for c, cell in zip(sheet.columns, row, strict=True)}
        if all(named[key] == value for key, value in wanted.items()):
            found.append(named)
    return found


def test_no_results_are_refused() -> None:
    with pytest.raises(InputError, match="no results to report"):
        compare_sources([])


def test_results_without_a_figure_are_named() -> None:
    full = made_results.made_result(members=(made_results.never_run(),))
    empty = replace(full, tables=(), layers=(), accuracy=None)
    says = r"a\.json holds no table of times and no counts of emulated code, for x86-64-v4"
    with pytest.raises(InputError, match=f"1 result without a figure: {says}; measure with"):
        compare_sources([source(empty)])
    (part,) = compare_sources([source(empty), source(full, "b.json")]).models
    (told,) = doubts(part)
    assert re.fullmatch(says, told)
    emulated = replace(empty, members=(made_results.emulated(),))
    assert not doubts(compare_sources([source(emulated)]).models[0])


def test_several_models_need_a_part_each() -> None:
    given = [
        source(made_results.made_result(model=name), f"{name}.json") for name in ("one", "two")
    ]
    with pytest.raises(InputError, match=r"2 different models.*\n.*one\.json.*\n[^-]*--group"):
        compare_sources(given)
    found = compare_sources(given, group=True)
    assert [part.model.name for part in found.models] == ["one", "two"]


def test_a_price_of_a_target_that_nobody_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"x86-64-v5, and no result is of it.*x86-64-v4"):
        compare_sources([source(made_results.made_result())], prices={"x86-64-v5": 1.0})


def test_costs_are_price_over_images_of_an_hour() -> None:
    found = compare_sources([source(made_results.made_result())], prices={"x86-64-v4": 0.36})
    run = found.models[0].ours[0]
    assert run.median_ms is not None
    # 0.36 an hour is 1e-4 a second, so 0.1 for the seconds that 1,000 images of a second take.
    assert found.cost_per_1000(run) == pytest.approx(0.1 * run.median_ms / 1e3)
    assert compare_sources([source(made_results.made_result())]).cost_per_1000(run) is None


def test_a_price_in_the_result_counts_unless_another_is_given() -> None:
    prices = Prices(per_hour=0.36, currency="EUR")
    priced = replace(made_results.made_result(), prices=prices)
    own = compare_sources([source(priced)])
    assert "Prices of an hour: x86-64-v4 0.36 EUR" in matrix(own).below
    given = compare_sources([source(priced)], prices={"x86-64-v4": 0.72})
    run = own.models[0].ours[0]
    costs = own.cost_per_1000(run), given.cost_per_1000(run)
    assert costs[0] is not None
    assert costs[1] == pytest.approx(2 * costs[0])


def test_the_matrix_has_every_row_with_its_percentiles() -> None:
    found = compare_sources([source(made_results.made_result(batches=(1, 4, 8), rounds=1500))])
    sheet = matrix(found)
    assert len(cells(sheet, runtime="tvmdet")) == 4
    assert {row["batch"] for row in cells(sheet, runtime="openvino", what="network")} == {
        "1",
        "4",
        "8",
    }
    (row,) = cells(sheet, runtime="tvmdet", what="network", batch="4")
    run = next(r for r in found.models[0].ours if r.what == "network" and r.batch_size == 4)
    right = np.percentile(run.latencies_ms, (50, 90, 95, 99, 99.9))
    shown = [float(row[f"{name} ms"]) for name in ("p50", "p90", "p95", "p99", "p99.9")]
    assert shown == pytest.approx(right, rel=6e-3)
    assert float(row["images/s"]) == pytest.approx(4e3 / right[0], rel=1e-2)
    assert row["AP"] == "41.0"
    assert row["parity"].startswith("right")
    assert "*" not in row["p99.9 ms"]


def test_what_answers_were_held_against_is_said() -> None:
    sheet = matrix(compare_sources([source(made_results.made_result())]))
    told = {
        (row["runtime"], row["what"]): row["parity"]
        for row in cells(sheet, batch="1")
        if row["parity"]
    }
    assert "max error 3.1e-06" in told["openvino", "network"]
    assert "tvmdet's boxes, IoU ≥ 1.0000" in told["openvino", "end to end"]


def test_an_undecided_verdict_says_what_could_have_been_seen() -> None:
    sheet = matrix(compare_sources([source(made_results.made_result())]))
    verdicts = [row["tvmdet is"] for row in cells(sheet, runtime="onnxruntime")]
    assert all(re.fullmatch(r"undecided, could see \d+\.\d%", text) for text in verdicts)
    assert {row["tvmdet is"] for row in cells(sheet, runtime="ncnn")} == {"faster"}


def test_percentiles_of_too_few_calls_are_marked() -> None:
    sheet = matrix(compare_sources([source(made_results.made_result(rounds=60))]))
    row = cells(sheet, runtime="tvmdet", what="network")[0]
    assert [row[f"{name} ms"].endswith("*") for name in ("p50", "p95", "p99", "p99.9")] == [
        False,
        False,
        True,
        True,
    ]
    assert "fewer calls" in sheet.below[0]


def test_a_thousand_calls_have_a_thousandth() -> None:
    for rounds, marked in ((999, True), (1000, False)):
        sheet = matrix(compare_sources([source(made_results.made_result(rounds=rounds))]))
        row = cells(sheet, runtime="tvmdet", what="network")[0]
        assert row["p99.9 ms"].endswith("*") == marked


def test_emulated_code_has_counts_and_never_a_latency() -> None:
    given = made_results.made_result(members=(made_results.emulated(),))
    for brief in (False, True):
        (row,) = cells(matrix(compare_sources([source(given)]), brief=brief), target="aarch64-neon")
        assert row["p50 ms"] == "emulated"
        assert row["counted"] == ("812 M instructions; 387 M cycles predicted for cortex-a76")
        assert not any(row[name] for name in row if name.startswith(("p9", "images", "cost")))
    (part,) = compare_sources([source(given)]).models
    run = next(run for run in part.runs if run.emulation is not None)
    assert (run.median_ms, run.images_per_s, run.percentiles_ms) == (None, None, {})
    assert len(cards(part, Names(part.runs, {}))) == 1


def test_what_several_results_say_of_emulated_code_stands_once() -> None:
    given = [
        source(made_results.made_result(precision=p, members=(made_results.emulated(),)), p)
        for p in ("fp32", "fp32 again")
    ]
    (part,) = compare_sources(given[:1]).models
    assert sum(run.emulation is not None for run in part.runs) == 1


def test_targets_that_nobody_ran_are_said_to_be_so() -> None:
    given = made_results.made_result(members=(made_results.never_run(),))
    for brief in (False, True):
        sheet = matrix(compare_sources([source(given)]), brief=brief)
        (row,) = cells(sheet, target="cuda-sm90")
        assert row["p50 ms"] == "not run"
        assert "never run here: it needs CUDA" in row.values()
    measured = made_results.made_result(target="cuda-sm90")
    (part,) = compare_sources([source(given), source(measured, "b.json")]).models
    assert not part.not_run


def test_rows_measured_twice_are_told_apart() -> None:
    given = [source(made_results.made_result(seed=seed), f"run-{seed}.json") for seed in (1, 2)]
    (part,) = compare_sources(given).models
    names = Names(part.runs, Names.number_sides(part.runs))
    rows = [names.row(run) for run in part.ours if run.what == "end to end"]
    assert rows == [f"x86-64-v4 · tvmdet fp32 (run-{seed})" for seed in (1, 2)]


def test_machines_are_named_where_two_have_the_target() -> None:
    given = [source(made_results.made_result(cpu=cpu), f"{cpu}.json") for cpu in ("CPU A", "CPU B")]
    (part,) = compare_sources(given).models
    names = Names(part.runs, {})
    assert {names.place(run.place) for run in part.runs} == {
        "x86-64-v4, CPU A (virtual)",
        "x86-64-v4, CPU B (virtual)",
    }


def test_findings_count_verdicts_answers_and_regressions() -> None:
    before = made_results.made_result()
    now = made_results.slowed(before, 1.2)
    (part,) = compare_sources([source(now)], baseline=[source(before, "old.json")]).models
    texts = {remark.text: remark.kind for remark in findings(part)}
    assert texts["Answers of all 3 checked rows of tvmdet are those of ONNX Runtime."] == "good"
    assert texts["3 regressions against the earlier results."] == "bad"
    assert any(text.startswith("Of 9 comparisons with rivals") for text in texts)


@pytest.mark.parametrize(
    ("noise", "limit", "kind"),
    [
        (0.005, r"one below [1-9]%", "good"),
        (0.15, r"one below [1-9]\d%", "unsure"),
        (None, "one of any size", "unsure"),
    ],
)
def test_undecided_changes_are_good_only_where_a_small_one_would_be_seen(
    noise: float | None, limit: str, kind: str
) -> None:
    rounds = 20 if noise else 4
    before, now = (
        made_results.made_result(rivals=(), rounds=rounds, noise=noise or 0.005, seed=seed)
        for seed in (1, 2)
    )
    (part,) = compare_sources([source(now)], baseline=[source(before, "old.json")]).models
    (remark,) = [one for one in findings(part) if one.text.startswith("No regression was seen")]
    assert re.search(rf"3 undecided: {limit} could have been missed\.$", remark.text), remark.text
    assert remark.kind == kind


def test_the_front_has_what_nothing_beats() -> None:
    def trade(name: str, ms: float, ap: float) -> Trade:
        return Trade(name=name, latency_ms=ms, accuracy=ap, style=0)

    assert pareto_front([]) == []
    assert accuracy_chart([], "none") == ""
    some = [
        trade("slow", 9, 0.4),
        trade("fast", 2, 0.3),
        trade("worse", 3, 0.3),
        trade("b", 4, 0.4),
    ]
    assert [one.name for one in pareto_front(some)] == ["fast", "b"]
    # Of equals one stands for both.
    assert len(pareto_front([trade("x", 1, 0.5), trade("y", 1, 0.5)])) == 1


def test_machines_of_one_target_are_told_apart_over_all_models() -> None:
    given = []
    for name, virtual in (("one", False), ("two", True)):
        result = made_results.made_result(model=name, accuracy=0.4)
        machine = replace(result.machine, cpu="A CPU whose name goes on and on", virtual=virtual)
        given.append(source(replace(result, machine=machine), f"{name}.json"))
    found = compare_sources(given, group=True)
    each, every = Names.of_report([part.runs for part in found.models])
    alone = [
        names.place(part.runs[0].place) for names, part in zip(each, found.models, strict=True)
    ]
    assert alone == ["x86-64-v4", "x86-64-v4"]
    sheet = overview_sheet(found, every)
    one, two = (cells(sheet, detector=name)[0]["target"] for name in ("one", "two"))
    assert one != two and two.endswith("(virtual)")
    assert not overview_figures(found, every)  # each machine has one model only


def test_rivals_are_named_with_version_and_settings() -> None:
    given = made_results.made_result()
    (table,) = given.tables[:1]
    rival = table.entries[1]
    (part,) = compare_sources([source(given)]).models
    told = dict(conditions(part.sources[0], Names(part.runs, {})))
    assert rival.version and told[rival.name].startswith(rival.version)
    assert rival.settings in told[rival.name]
