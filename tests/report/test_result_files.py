"""Result files: there and back, of older schemas, and every way of being no result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_samples import schema_1

from tvmdet.errors import InputError
from tvmdet.report import dump_result, load_result, load_results, result_schema
from tvmdet.report.result_file import result_digest
from tvmdet.report.typed_json import to_json

DOCS = Path(__file__).parents[2] / "docs"


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def newest(tmp_path: Path) -> dict[str, Any]:
    """A valid result of the newest schema, as JSON values."""
    return to_json(load_result(write(tmp_path / "one.json", schema_1())))


def test_schema_1_stays_readable(tmp_path: Path) -> None:
    found = load_result(write(tmp_path / "old.json", schema_1()))
    assert (found.schema, found.setup, found.created) == (2, None, "")
    assert found.artifact.path == "m.tvmdet"
    assert (found.target.name, found.target.precision) == ("x86-64-v3", "fp32")
    (table,) = found.tables
    ours, theirs, failed = table.entries
    assert ours.rounds_us == (1000.0, 2000.0, 3000.0)
    assert ours.latency is not None
    # Computed from the calls: the older schema did not have it.
    assert ours.latency.p95_ms == pytest.approx(2.9)
    assert [(stage.name, stage.median_ms) for stage in ours.stages] == [("network", 2.0)]
    assert theirs.tvmdet_over_this is not None
    assert theirs.tvmdet_over_this.noise_floor is None
    assert failed.latency is None
    assert table.noise is None
    assert found.layers[0].layers[0].knobs == {"tile": 4}
    assert "schema 1" in found.warnings[0]


@pytest.mark.parametrize("schema", [1, 2])
def test_ratios_of_medians_stay_readable(
    newest: dict[str, Any], tmp_path: Path, schema: int
) -> None:
    """As the first benchmarks wrote them; the median of the rounds' ratios is 0.75 here."""
    value = schema_1() if schema == 1 else newest
    rival = value["tables"][0]["entries"][1]
    rival["rounds_us"] = [6000.0, 2000.0, 4000.0]
    found = load_result(write(tmp_path / "old.json", value))
    assert found.tables[0].entries[1].tvmdet_over_this is not None
    assert found.tables[0].entries[1].tvmdet_over_this.ratio == 0.5
    rival["tvmdet_over_this"].update(ratio=0.6, interval_95=[0.4, 0.8])
    with pytest.raises(InputError, match=r"ratio is 0\.6, and that of its calls is 0\.75"):
        load_result(write(tmp_path / "wrong.json", value))


def test_what_is_written_is_read(newest: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "again.json"
    path.write_text(dump_result(newest))
    assert json.loads(path.read_text()) == newest
    assert to_json(load_result(path)) == newest
    assert '"rounds_us": [1000.0,2000.0,3000.0]' in path.read_text()


@pytest.mark.parametrize(
    "text",
    ['\0"\\u0000', "é\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\n,{}[]"],
)
def test_any_text_survives(newest: dict[str, Any], tmp_path: Path, text: str) -> None:
    path = tmp_path / "again.json"
    newest["model"]["name"] = text
    path.write_text(dump_result(newest), encoding="utf-8")
    assert load_result(path).model.name == text


def test_unknown_keys_are_passed_over(newest: dict[str, Any], tmp_path: Path) -> None:
    newest["novelty"] = newest["machine"]["novelty"] = 1
    assert load_result(write(tmp_path / "more.json", newest)).machine.cpu == "A CPU"


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    def changed(value: dict[str, Any]) -> Any:
        change(value)
        return value

    return changed


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda v: [v], "not a result of `tvmdet bench --json`", id="a list"),
        pytest.param(lambda _v: {}, "not a result of `tvmdet bench --json`", id="nothing"),
        pytest.param(
            lambda _v: {"benchmarks": [], "schema": 1}, "not a result of", id="another program's"
        ),
        pytest.param(
            damaged(lambda v: v.update(schema=3)), "has schema 3, .* --upgrade tvmdet", id="newer"
        ),
        pytest.param(damaged(lambda v: v.update(schema="2")), "its schema is '2'", id="no number"),
        pytest.param(damaged(lambda v: v.update(schema=0)), "its schema is 0", id="schema 0"),
        pytest.param(
            damaged(lambda v: v.update(threads=0)), "threads is 0, less than 1", id="no threads"
        ),
        pytest.param(
            damaged(lambda v: v["machine"].pop("cpu")), "machine.cpu is missing", id="no machine"
        ),
        pytest.param(
            damaged(lambda v: v["tables"][0]["entries"][0]["rounds_us"].pop()),
            r"tables\[0\], tvmdet: latency.count is 3, of 2 rounds",
            id="a lost round",
        ),
        pytest.param(
            damaged(lambda v: v["tables"][0]["entries"][0]["stages"][0].update(rounds_us=[1.0])),
            "stage network has not the rounds of its calls",
            id="a lost stage",
        ),
        pytest.param(
            damaged(lambda v: v["tables"].append(v["tables"][0])),
            r"tables\[1\] is a second one of network, batch 1",
            id="a table twice",
        ),
        pytest.param(
            damaged(lambda v: v["tables"][0]["entries"].append(v["tables"][0]["entries"][1])),
            r"tables\[0\], onnxruntime: is there twice",
            id="a contestant twice",
        ),
        *(
            pytest.param(
                damaged(
                    lambda v, changes=changes: v["tables"][0]["entries"][1][
                        "tvmdet_over_this"
                    ].update(changes)
                ),
                says,
                id=str(changes),
            )
            for changes, says in (
                ({"ratio": 0.45}, r"ratio is 0\.45, and that of its calls is 0\.50000"),
                ({"ratio": 0.5011}, "and that of its calls is"),
                ({"interval_95": [0.2, 0.3]}, "ratio is 0.5, outside its interval"),
                ({"verdict": "slower"}, "the verdict is slower, and interval_95"),
                ({"interval_95": [0.4, 1.1], "verdict": "faster"}, "the verdict is faster, and"),
                ({"interval_95": [0.4, 1e300]}, "ratios are above 0"),
            )
        ),
        pytest.param(
            damaged(lambda v: v["tables"][0]["entries"][0].update(latency=None, rounds_us=[])),
            "of rounds that do not pair with tvmdet's",
            id="a ratio without calls",
        ),
        *(
            pytest.param(
                damaged(lambda v, us=us: v["tables"][0]["entries"][0].update(rounds_us=us)),
                r"rounds_us\[0\] is 1e\+308, not plausible: more than 1e\+12",
                id=f"calls of {us[0]} us",
            )
            for us in ([1e308, 1.0, 1.0],)
        ),
        pytest.param(
            damaged(lambda v: v["artifact"].update(bytes=10**30)), "not plausible", id="a size"
        ),
        *(
            pytest.param(
                damaged(
                    lambda v, interval=interval: v["tables"][0]["entries"][1][
                        "tvmdet_over_this"
                    ].update(interval_95=interval)
                ),
                "interval_95 is .*; ratios are above 0",
                id=f"an interval of {interval}",
            )
            for interval in ([0, 0.5], [-1, 2], [2, 1])
        ),
    ],
)
def test_what_is_no_result_is_refused(
    newest: dict[str, Any], tmp_path: Path, make: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = write(tmp_path / "bad.json", make(newest))
    with pytest.raises(InputError, match=says) as caught:
        load_result(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(tables=5),
        lambda v: v["machine"].pop("python"),
        lambda v: v["tables"][0].pop("entries"),
        lambda v: v["tables"][0]["entries"][0].update(rounds_us="abc"),
        lambda v: v.update(model=[]),
    ],
)
def test_a_damaged_result_of_schema_1_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    value = schema_1()
    change(value)
    with pytest.raises(InputError, match="is a damaged result"):
        load_result(write(tmp_path / "bad.json", value))


def test_every_truncation_is_refused(newest: dict[str, Any], tmp_path: Path) -> None:
    text = dump_result(newest).rstrip()
    path = tmp_path / "cut.json"
    for length in range(0, len(text), 97):
        path.write_text(text[:length])
        with pytest.raises(InputError, match=r"is cut off|is not JSON|is empty"):
            load_result(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="or copy the whole file"):
        load_result(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xfe\x00", "is not JSON"),
        (b"PK\x03\x04 a compiled file", "is not JSON"),
        (b'{"schema": NaN}', "NaN is no number of JSON"),
        (b"[" * 100_000, "is not JSON|is cut off"),
    ],
)
def test_what_is_not_json_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says):
        load_result(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=r"cannot read .*; give a file that"):
            load_result(path)


def test_results_are_read_in_their_order_and_once(newest: dict[str, Any], tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", newest)
    second = write(tmp_path / "b.json", {**newest, "threads": 2})
    assert [result.threads for result in load_results([second, first])] == [2, 1]
    copy = tmp_path / "copy.json"
    copy.write_text(dump_result(newest))  # of another layout
    with pytest.raises(InputError, match=r"a\.json and .*copy\.json are the same result"):
        load_results([first, second, copy])
    with pytest.raises(InputError, match="there is no result to report on"):
        load_results([])
    assert result_digest(load_result(first)) != result_digest(load_result(second))


def test_the_documented_schema_is_the_one_that_is_read() -> None:
    """Written by ``python -m tvmdet.report.result_file > docs/result.schema.json``."""
    assert json.loads((DOCS / "result.schema.json").read_text()) == result_schema()
