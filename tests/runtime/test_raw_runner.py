from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.errors import InputError
from tvmdet.runtime import Detector, load

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def network(raw_path: Path) -> Iterator[Detector]:
    with load(raw_path) as detector:
        yield detector


def inputs_of(count: int) -> dict[str, np.ndarray]:
    return {name: RNG.random((count, 3, 5), np.float32) for name in ("left", "right")}


@pytest.mark.parametrize("count", range(6))
def test_any_batch(network: Detector, count: int) -> None:
    inputs = inputs_of(count)
    outputs = network.run(inputs)
    assert list(outputs) == ["weighted", "rowsum"]
    weighted = 2 * inputs["left"] + inputs["right"]
    assert_close(outputs["weighted"], weighted)
    assert_close(outputs["rowsum"], weighted.sum(axis=2), rtol=1e-4)
    for array in outputs.values():
        assert array.flags.owndata
        assert array.dtype == np.float32


def test_strided_and_read_only_inputs(network: Detector) -> None:
    inputs = {name: array[:, ::-1, ::-1] for name, array in inputs_of(1).items()}
    for array in inputs.values():
        array.setflags(write=False)
    assert_close(network.run(inputs)["weighted"], 2 * inputs["left"] + inputs["right"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"left": None}, "input 'left' is a NoneType", id="no array"),
        pytest.param({"odd": np.zeros(1)}, "has no input 'odd'; its inputs: left", id="unknown"),
        pytest.param(
            {"left": np.zeros((1, 3, 5))},
            r"is \[1, 3, 5\] float64; needed: \[n, 3, 5\] float32 \(array.astype\('float32'\)\)",
            id="dtype",
        ),
        pytest.param({"left": np.zeros((1, 3, 4), np.float32)}, r"is \[1, 3, 4\]", id="shape"),
        pytest.param({"left": np.zeros((3, 5), np.float32)}, r"is \[3, 5\]", id="rank"),
        pytest.param(
            {"left": np.zeros((2, 3, 5), np.float32)}, r"batches of \[1, 2\]", id="batches differ"
        ),
    ],
)
def test_refuses(network: Detector, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        network.run({**inputs_of(1), **change})  # type: ignore[arg-type]


def test_refuses_a_missing_input(network: Detector) -> None:
    with pytest.raises(InputError, match="input 'right' is missing"):
        network.run({"left": np.zeros((1, 3, 5), np.float32)})
    with pytest.raises(InputError, match="inputs is a list; give a dict of: left"):
        network.run([])  # type: ignore[arg-type]


def test_detect_points_to_run(network: Detector) -> None:
    with pytest.raises(InputError, match=r"compiled with --raw .*use run\(\{name: array\}\)"):
        network.detect(np.zeros((4, 4, 3), np.uint8))
