from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from assertions import assert_close
from toy_modules import compile_whole_network, toy_spec, write_toy

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


WHOLE = {
    "inputs": [
        {"name": "table", "shape": [7, 5], "dtype": "float32", "batched": False},
        {"name": "factor", "shape": [], "dtype": "float32", "batched": False},
        {"name": "row", "shape": [1, 5], "dtype": "float32", "batched": True},
    ],
    "outputs": [
        {"name": "scaled", "shape": [7, 5], "dtype": "float32"},
        {"name": "total", "shape": [], "dtype": "float32"},
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
    folder = tmp_path_factory.mktemp("whole")
    library = compile_whole_network(folder / "network.so")
    spec = toy_spec(family="raw", labels=()).to_dict()
    path = write_toy(folder / "raw.tvmdet", library, spec=spec, raw=WHOLE, batch_sizes=[1, 2])
    with load(path) as detector:
        yield detector


def whole_inputs() -> dict[str, np.ndarray]:
    return {
        "table": RNG.random((7, 5), np.float32),
        "factor": np.array(1.5, np.float32),
        "row": RNG.random((1, 5), np.float32),
    }


def test_tensors_without_a_batch_go_in_and_come_out_whole(whole: Detector) -> None:
    inputs = whole_inputs()
    outputs = whole.run(inputs)
    scaled = inputs["table"] * inputs["factor"] + inputs["row"]
    assert_close(outputs["scaled"], scaled)
    assert outputs["total"].shape == ()
    assert_close(outputs["total"], scaled.sum(), rtol=1e-4)
    assert all(array.flags.owndata for array in outputs.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"row": np.zeros((2, 5), np.float32)},
            r"'row' is \[2, 5\] float32; needed: \[1, 5\] float32",
            id="two items",
        ),
        pytest.param(
            {"table": np.zeros((6, 5), np.float32)},
            r"'table' is \[6, 5\] float32; needed: \[7, 5\] float32",
            id="another first dimension",
        ),
        pytest.param(
            {"factor": np.zeros(1, np.float32)}, r"'factor' is \[1\] .* needed: \[\]", id="rank"
        ),
    ],
)
def test_without_a_batch_the_shape_is_exact(
    whole: Detector, change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        whole.run({**whole_inputs(), **change})
