"""The three forms of a report: whole, self-contained, safe, of bounded size; what is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import made_results
import pytest

from tvmdet.errors import InputError
from tvmdet.report.pages import ReportOptions, write_report
from tvmdet.report.result_format import Result

_VOID = {"meta", "link", "br", "hr", "img", "input", "rect", "path"}
_HOSTILE = '<script>alert(1)</script>|*"&`\n# x'


class Page(HTMLParser):
    """Checks that elements nest, and notes what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.scripts += tag == "script"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def files(folder: Path, results: Sequence[Result]) -> list[Path]:
    return [
        made_results.written(result, folder / f"{index}.json")
        for index, result in enumerate(results)
    ]


def html(folder: Path, results: Sequence[Result], **options: object) -> str:
    given = ReportOptions(**options)  # type: ignore[arg-type]
    written = write_report(files(folder, results), folder / "report.html", given)
    return written.path.read_text(encoding="utf-8")


def test_a_page_has_every_chapter_and_fetches_nothing(tmp_path: Path) -> None:
    members = (made_results.emulated(), made_results.never_run())
    before = made_results.written(made_results.made_result(seed=9), tmp_path / "old.json")
    result = made_results.made_result(members=members, warnings=("the machine was not quiet",))
    text = html(tmp_path, [result], baseline=(before,), prices={"x86-64-v4": 0.17})
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert page.scripts == 1
    for said in (
        "Changes",
        "Rivals",
        "Target x batch x precision",
        "Latency, end to end, batch 1",
        "Throughput, network, x86-64-v4",
        "Accuracy against latency",
        "Where the time goes, end to end",
        "Roofline of the kernels",
        "What tuning could win at most",
        "812 M instructions",
        "never run here: it needs CUDA",
        "the machine was not quiet",
        "tvmdet bench made_detector.tvmdet --json x86-64-v4.json",
        made_results.SYNTHETIC,
    ):
        assert said in text, said


def test_drawings_are_well_formed_and_told_in_words(tmp_path: Path) -> None:
    text = html(tmp_path, [made_results.made_result(batches=(1, 4, 8))])
    drawings = re.findall(r'<figure class="chart">.*?(<svg.*?</svg>)</figure>', text, re.DOTALL)
    assert len(drawings) >= 9
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        box = [float(word) for word in root.attrib["viewBox"].split()]
        assert len(root.findtext("desc") or "") > 20
        assert root.findtext("title")
        for element in root.iter("text"):
            assert -1 <= float(element.attrib["x"]) <= box[2] + 1
            assert -1 <= float(element.attrib["y"]) <= box[3] + 1
        assert "nan" not in drawing


def test_verdicts_stand_beside_the_median(tmp_path: Path) -> None:
    models = [made_results.made_result(model=name) for name in ("one", "two")]
    text = html(tmp_path, models, group=True)
    heads = [
        re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", head)
        for head in re.findall(r"<thead>.*?</thead>", text, re.DOTALL)
    ]
    overview, matrix = heads[0], next(head for head in heads if "runtime" in head)
    for head, ratio in ((overview, "tvmdet / rival"), (matrix, "tvmdet / this")):
        at = head.index("p50 ms")
        assert head[at + 1 : at + 3] == [ratio, "tvmdet is"]
    write_report([tmp_path / "0.json"], tmp_path / "r.md")
    line = next(one for one in (tmp_path / "r.md").read_text().splitlines() if "p50 ms" in one)
    assert "| p50 ms | tvmdet / this | tvmdet is | fastest rival | p90 ms |" in line


def test_kernels_are_no_part_of_a_print(tmp_path: Path) -> None:
    members = (made_results.emulated(),)
    text = html(tmp_path, [made_results.made_result(members=members)])
    names = re.findall(r'<section class="chapter detail">\s*<h3>([^,<]*)', text)
    assert names == ["Kernels"]  # of what is timed; this emulation counted none
    assert text.count("Kernels are not printed") == 1
    in_print = text[text.index("@media print") : text.index("</style>")]
    assert re.search(r"\.detail[^}]*\{ display: none; \}", in_print)
    # Patterns become pictures on paper.
    assert "url(" not in in_print
    assert len(re.findall(r"\.h\d \{ fill: #", in_print)) == 8


def test_series_differ_in_shape_and_not_only_in_colour(tmp_path: Path) -> None:
    text = html(tmp_path, [made_results.made_result(batches=(1, 4))])
    (drawing,) = re.findall(r"<svg[^>]*><title>Throughput.*?</svg>", text, re.DOTALL)
    marks = set(re.findall(r'class="mark (s\d)" d="([^"]+)"', drawing))
    assert len(marks) == len({style for style, _ in marks}) == len({shape for _, shape in marks})
    assert len(marks) == 1 + len(made_results.RIVALS)


def test_a_name_cannot_become_markup(tmp_path: Path) -> None:
    result = made_results.made_result(model=_HOSTILE, warnings=(_HOSTILE,), cpu=_HOSTILE)
    text = html(tmp_path, [result])
    assert Page(text).scripts == 1
    assert "&lt;script&gt;alert(1)" in text
    write_report([tmp_path / "0.json"], tmp_path / "r.md")
    prose = re.sub(r"```.*?```", "", (tmp_path / "r.md").read_text(), flags=re.DOTALL)
    assert "<script>" not in prose
    assert not re.search(r"^# x", prose, re.MULTILINE)


def test_tables_of_markdown_have_equal_rows_and_few_of_them(tmp_path: Path) -> None:
    members = (made_results.never_run(),)
    results = [
        made_results.made_result(target=f"made-{index}", seed=index, members=members)
        for index in range(8)
    ]
    written = write_report(files(tmp_path, results), tmp_path / "report.md")
    lines = written.path.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    # One row for each place, batch and kind, not one more for each rival.
    assert len(table) == 2 + 8 * 3 + 1
    assert len("\n".join(lines)) < 10_000


def many(folder: Path, count: int) -> list[Path]:
    """Results of as many models."""
    return files(
        folder,
        [
            made_results.made_result(
                model=f"made_{'detector_' * 4}{index}",
                batches=(1, 4, 8, 16, 32),
                rounds=8,
                layers=False,
                rivals=("onnxruntime",),
                seed=index,
            )
            for index in range(count)
        ],
    )


@pytest.mark.parametrize(("count", "is_cut"), [(33, False), (60, True)])
def test_markdown_of_many_results_still_fits_a_pull_request(
    tmp_path: Path, count: int, is_cut: bool
) -> None:
    paths = many(tmp_path, count)
    options = ReportOptions(group=True)
    text = write_report(paths, tmp_path / "r.md", options).path.read_text()
    assert 55_000 < len(text) <= 65_536
    assert "tvmdet bench" not in text
    assert ("The rest is left out: a pull request holds 65,536 characters" in text) == is_cut
    assert ("Commands that repeat it are left out for length" in text) == (not is_cut)
    few = write_report(paths[:2], tmp_path / "few.md", options).path.read_text()
    assert "tvmdet bench" in few and "left out" not in few


def test_a_cut_report_says_how_many_regressions_it_found(tmp_path: Path) -> None:
    paths = many(tmp_path, 60)
    new = made_results.made_result(model="slow", rivals=("onnxruntime",), layers=False, rounds=20)
    old = made_results.written(made_results.slowed(new, 0.5), tmp_path / "old.json")
    paths.append(made_results.written(new, tmp_path / "new.json"))
    options = ReportOptions(group=True, baseline=(old,))
    written = write_report(paths, tmp_path / "r.md", options)
    assert written.regressions
    found = f"It found {written.regressions} regressions in all."
    assert found in written.path.read_text()[-300:]


def test_markdown_says_on_what_it_was_measured_and_whether_answers_are_right(
    tmp_path: Path,
) -> None:
    one = made_results.made_result(rivals=("onnxruntime",))
    again = replace(
        one, created="2026-01-05T00:00:00Z", target=replace(one.target, precision="bf16")
    )
    other = made_results.made_result(cpu="Synthetic CPU 9001", rivals=("openvino",), seed=3)
    text = write_report(files(tmp_path, [one, again, other]), tmp_path / "r.md").path.read_text()
    told = [line for line in text.splitlines() if line.startswith("- Synthetic")]
    assert told == [
        "- Synthetic CPU 9000 (2 of 2 CPUs, virtual); avx2 fma; 2 threads each; tvmdet 0.1.0, "
        "onnxruntime 1.2.3: x86-64-v4 fp32, 2026-01-02; x86-64-v4 bf16, 2026-01-05",
        "- Synthetic CPU 9001 (2 of 2 CPUs, virtual); avx2 fma; 2 threads each; tvmdet 0.1.0, "
        "openvino 1.2.3: x86-64-v4 fp32, 2026-01-02",
    ]
    heading, _, *rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert {"p90 ms", "p99 ms", "parity"} <= set(heading)
    assert all(row[heading.index("parity")].startswith("✅ right, ") for row in rows)
    assert text.index(told[0]) < text.index("p90 ms")


def test_an_earlier_report_is_a_baseline(tmp_path: Path) -> None:
    before = made_results.made_result()
    now = made_results.slowed(before, 1.15)
    write_report(files(tmp_path, [before]), tmp_path / "report.json")
    new = made_results.written(now, tmp_path / "new.json")
    options = ReportOptions(baseline=(tmp_path / "report.json",))
    written = write_report([new], tmp_path / "next.json", options)
    assert written.regressions == 3
    value = json.loads(written.path.read_text())
    (model,) = value["models"]
    assert model["regressions"] == 3
    assert len(model["rows"]) == 15
    slow = [change for change in model["changes"] if change["is_regression"]]
    assert all(change["interval_95"][0] > 1.1 for change in slow)
    assert value["results"][0]["result"]["schema"] == made_results.SCHEMA


def test_two_models_are_parts_of_one_page_when_asked(tmp_path: Path) -> None:
    results = [made_results.made_result(model=name, accuracy=0.4) for name in ("one", "two")]
    paths = files(tmp_path, results)
    with pytest.raises(InputError, match=r"2 different models.*[\s\S]*--group"):
        write_report(paths, tmp_path / "report.html")
    text = html(tmp_path, results, group=True)
    assert 'href="#model-1"' in text
    assert text.count('<section class="model"') == 2
    assert "All detectors" in text
    write_report(paths, tmp_path / "r.md", ReportOptions(group=True))
    table = (tmp_path / "r.md").read_text().split("\n\n")[1].splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| one", "| two"]
    assert "Accuracy against latency of all models, x86-64-v4" in text


def test_results_without_rivals_accuracy_profile_or_noise_make_a_page(tmp_path: Path) -> None:
    bare = made_results.made_result(rivals=(), accuracy=None, layers=False, batches=(1,), rounds=1)
    tables = tuple(replace(table, noise=None) for table in bare.tables)
    text = html(tmp_path, [replace(bare, tables=tables, peak=None, parity=None)])
    assert "No average precision" in text
    assert "Roofline" not in text


def test_figures_of_nothing_make_a_page(tmp_path: Path) -> None:
    result = made_results.made_result(batches=(1,), rivals=())
    assert result.peak is not None
    tables = []
    for table in result.tables:
        ours = replace(table.entries[0], rounds_us=(0.0,) * 60)
        tables.append(replace(table, entries=(ours,)))
    text = html(tmp_path, [replace(result, tables=tuple(tables))])
    assert "1e-06" in text
    for peak in (
        replace(result.peak, f32_gflops=0.0),
        replace(result.peak, read_gb_per_s={}),
        replace(result.peak, read_gb_per_s={"some": 1.0}),
    ):
        assert "Roofline" not in html(tmp_path, [replace(result, peak=peak)])


def test_a_result_of_the_first_schema_makes_a_page(tmp_path: Path) -> None:
    whole = made_results.to_json(made_results.made_result())
    tables = [
        {
            "what": table["what"],
            "batch_size": table["batch_size"],
            "entries": [
                {
                    **{key: entry[key] for key in ("name", "precision", "problem", "rounds_us")},
                    "phases_ms": {stage["name"]: stage["median_ms"] for stage in entry["stages"]},
                }
                for entry in table["entries"]
            ],
            "disturbance": {"others_cpus": 0.0, "stolen_cpus": 0.0},
        }
        for table in whole["tables"]
    ]
    kept = {key: whole[key] for key in ("model", "threads", "peak", "layers", "command")}
    machine = {**whole["machine"], "python": "3.11"}
    first = {"artifact": "old.tvmdet", "target": "x86-64-v4", "machine": machine, "tables": tables}
    (tmp_path / "old.json").write_text(json.dumps({**kept, **first}))
    new = made_results.written(made_results.made_result(seed=4), tmp_path / "new.json")
    options = ReportOptions(baseline=(tmp_path / "old.json",))
    written = write_report([new], tmp_path / "r.html", options)
    changes = written.comparison.models[0].changes
    assert any(change.ratio is not None for change in changes)
    assert "noise floor not known" in written.path.read_text()
    Page(write_report([tmp_path / "old.json"], tmp_path / "o.html").path.read_text())


def test_a_hundred_thousand_latencies_stay_small(tmp_path: Path) -> None:
    results = [
        made_results.made_result(
            target=f"made-{index}",
            seed=index,
            rounds=2778,
            rivals=("onnxruntime", "openvino"),
            noise=0.2,
        )
        for index in range(4)
    ]
    paths = files(tmp_path, results)
    written = write_report(paths, tmp_path / "report.html")
    (part,) = written.comparison.models
    assert sum(run.latencies_ms.size for run in part.runs) >= 100_000
    assert written.path.stat().st_size < 5_000_000
    first = written.path.read_bytes()
    again = write_report(paths, tmp_path / "report.html").path.read_bytes()
    assert re.sub(rb"put together [^<]*", b"", first) == re.sub(rb"put together [^<]*", b"", again)


def test_ten_results_of_eight_targets_take_less_than_five_seconds_of_cpu(tmp_path: Path) -> None:
    results = [
        made_results.made_result(
            target=f"made-{index % 8}",
            precision="fp32" if index < 8 else "bf16",
            batches=(1, 4, 8),
            seed=index,
            rounds=200,
        )
        for index in range(10)
    ]
    paths = files(tmp_path, results)
    start = time.process_time()
    written = write_report(paths, tmp_path / "report.html")
    # Of the CPU, not of the clock: others may have the machine.
    assert time.process_time() - start < 5.0
    assert len({run.place.target for run in written.comparison.models[0].runs}) == 8


BAD_FILES = [
    ("", "is empty"),
    ('{"format": "tvmdet benchmark", "schema": 2,', "is cut off"),
    ("[1, 2]", "not a result"),
    ('{"a": 1}', "not a result"),
    ("what", "is not JSON"),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES, ids=[said for _, said in BAD_FILES])
def test_files_that_are_no_results_are_refused(tmp_path: Path, text: str, said: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    with pytest.raises(InputError, match=said):
        write_report([bad], tmp_path / "report.html")
    good = made_results.written(made_results.made_result(), tmp_path / "good.json")
    with pytest.raises(InputError, match=said):
        write_report([good], tmp_path / "r.html", ReportOptions(baseline=(bad,)))
    assert not (tmp_path / "report.html").exists()


def test_a_report_is_no_result_but_an_earlier_one(tmp_path: Path) -> None:
    result = made_results.written(made_results.made_result(), tmp_path / "one.json")
    report = write_report([result], tmp_path / "report.json").path
    with pytest.raises(InputError, match="is a report that `tvmdet report` wrote, not a result"):
        write_report([report], tmp_path / "again.html")


def test_what_else_is_refused(tmp_path: Path) -> None:
    good = made_results.written(made_results.made_result(), tmp_path / "good.json")
    newer = made_results.written(made_results.made_result(), tmp_path / "newer.json", schema=99)
    page = tmp_path / "report.html"
    with pytest.raises(InputError, match="schema 99"):
        write_report([newer], page)
    with pytest.raises(InputError, match="same result"):
        write_report([good, good], page)
    with pytest.raises(InputError, match="no result"):
        write_report([], page)
    with pytest.raises(InputError, match=r"cannot read .*gone\.json"):
        write_report([tmp_path / "gone.json"], page)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere.*make it first"):
        write_report([good], tmp_path / "nowhere" / "report.html")
    with pytest.raises(InputError, match=r"ends in '\.pdf', and reports are \.html, \.md, \.json"):
        write_report([good], tmp_path / "report.pdf")
    with pytest.raises(InputError, match="has no suffix"):
        write_report([good], tmp_path / "report")
    folder = tmp_path / "taken.html"
    folder.mkdir()
    with pytest.raises(InputError, match=r"cannot write .*taken\.html"):
        write_report([good], folder)


DAMAGED_REPORTS = [
    ({"format": "tvmdet report"}, "damaged report"),
    ({"format": "tvmdet report", "schema": 1, "results": [{}]}, r"results\[0\] holds no result"),
    ({"format": "tvmdet report", "schema": 7, "results": []}, "report of schema 7"),
    (
        {"format": "tvmdet report", "schema": 1, "results": [{"result": {"format": "x"}}]},
        r"results\[0\] of .*old\.json",
    ),
]


@pytest.mark.parametrize(("value", "said"), DAMAGED_REPORTS, ids=[s for _, s in DAMAGED_REPORTS])
def test_damaged_reports_are_no_baseline(
    tmp_path: Path, value: dict[str, object], said: str
) -> None:
    good = made_results.written(made_results.made_result(), tmp_path / "good.json")
    old = tmp_path / "old.json"
    old.write_text(json.dumps(value))
    with pytest.raises(InputError, match=said):
        write_report([good], tmp_path / "r.html", ReportOptions(baseline=(old,)))


def test_without_jinja2_the_other_forms_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = made_results.written(made_results.made_result(), tmp_path / "good.json")
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(InputError, match=r"jinja2: pip install 'tvmdet\[report\]', or write \.md"):
        write_report([good], tmp_path / "report.html")
    assert write_report([good], tmp_path / "report.md").path.exists()
