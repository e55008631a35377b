"""Numbers at the ends of what a result may hold: drawn, or refused in a sentence, never a crash."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_results
import pytest

from tvmdet.errors import InputError
from tvmdet.report.pages import write_report
from tvmdet.report.typed_json import to_json


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers are; of lists in the first two values only."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*place, key))
    elif isinstance(value, list):
        for index, one in enumerate(value[:2]):
            yield from places(one, (*place, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place


@pytest.mark.parametrize("number", [0, 1e-308, 1e15, 10**40], ids=str)
def test_no_number_crashes_a_report(tmp_path: Path, number: float) -> None:
    result = to_json(
        made_results.made_result(
            rounds=8, batches=(1,), rivals=("openvino",), members=(made_results.emulated(),)
        )
    )
    result["layers"][0]["layers"] = result["layers"][0]["layers"][:2]
    path, drawn, refused = tmp_path / "r.json", 0, []
    found = list(places(result))
    assert len(found) > 100
    for place in found:
        changed = copy.deepcopy(result)
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = number
        path.write_text(json.dumps(changed))
        try:
            page = write_report([path], tmp_path / "report.html").path.read_text()
            write_report([path], tmp_path / "report.md")
        except InputError as error:
            refused.append(str(error))
            continue
        drawn += 1
        drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
        assert not re.search(r"\b(?:nan|inf)\b", drawings), place
    assert drawn > 0
    assert all("r.json" in error for error in refused)
