"""An evaluation is put beside the times of the file that was evaluated, and of no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_files import BLUE, thing, write

from tvmdet.errors import InputError
from tvmdet.report import EvalOptions, evaluate
from tvmdet.report.accuracy import read_accuracy


@pytest.fixture
def evaluation(toy_path: Path, tmp_path: Path) -> dict[str, Any]:
    """What ``tvmdet eval --json`` writes of the toy detector."""
    annotations = write(tmp_path / "pictures", [thing(1, 1, BLUE)])
    options = EvalOptions(annotations=annotations, images=annotations.parent, threads=1)
    return evaluate(toy_path, options).to_dict()


def test_the_file_that_was_evaluated(
    evaluation: dict[str, Any], toy_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(evaluation))
    found = read_accuracy(path, toy_path, evaluation["target"])
    assert (found.ap, found.images) == (evaluation["boxes"]["ap"], evaluation["images"])
    assert found.ap is not None and found.target == evaluation["target"]


def _changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda found: {**found, **values}


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda found: {key: value for key, value in found.items() if key != name}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_changed(file_sha256="ab", file="fp32.tvmdet"), "of fp32.tvmdet, SHA-256 ab; that of"),
        (_changed(target="x86-64-v9"), "of x86-64-v9, and .* is measured"),
        (_without("file_sha256"), "no evaluation .*file_sha256"),
        (_changed(images="many"), "no evaluation: images"),
        (lambda _: [], "no evaluation"),
    ],
)
def test_anything_else_is_refused(
    evaluation: dict[str, Any],
    toy_path: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    says: str,
) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(change(evaluation)))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} is .*{says}"):
        read_accuracy(path, toy_path, evaluation["target"])
