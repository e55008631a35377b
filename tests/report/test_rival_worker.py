"""The process of one contestant, with a small rival in plain Python."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tvmdet.report.rivals import serve
from tvmdet.report.worker import Worker, WorkerError

FAKE = """
import os, sys, time
print("a runtime that talks", flush=True)

def load(model, signature, *, threads, precision, mode):
    print("loading", model, flush=True)
    if mode == "broken":
        raise ValueError("no such operator: Frobnicate")
    if mode == "dies":
        sys.stderr.write("fatal: out of cheese\\n")
        sys.stderr.flush()
        os._exit(3)
    def run(inputs):
        if mode == "slow":
            time.sleep(60)
        return {name: array * threads for name, array in inputs.items()}
    return run

def version():
    return "fake 1.0"

def settings(threads, precision, mode):
    return f"{threads} {precision} {mode} {os.environ['OMP_NUM_THREADS']}"

def double(value):
    return 2 * value

CALLS = {"double": double}
"""


@pytest.fixture
def rival(tmp_path: Path) -> Path:
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return path


@pytest.fixture
def worker(rival: Path) -> Iterator[Worker]:
    with start(rival) as started:
        yield started


def start(rival: Path) -> Worker:
    return Worker(Path(sys.executable), rival, threads=3, environment=dict(os.environ))


def load(worker: Worker, mode: str = "") -> dict:
    options = {"threads": 3, "precision": "fp32", "mode": mode}
    return worker.load(Path("x.onnx"), {}, options)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.float32(2.5).reshape(()),
        np.arange(24, dtype=np.int64).reshape(2, 3, 4),
        np.arange(24, dtype=np.float32).reshape(4, 6).T,
        np.array([[250, 1]], np.uint8),
        np.array([True, False]),
        np.arange(5, dtype=">f4"),
    ],
    ids=["empty", "scalar", "int64", "transposed", "uint8", "bool", "big endian"],
)
def test_messages_keep_arrays(array: np.ndarray) -> None:
    stream = io.BytesIO(b"".join(serve.encode({"do": "x"}, {"y": array, "z": array})))
    header = serve.decode_header(stream.read)
    assert header is not None
    assert header["do"] == "x"
    arrays = serve.receive_arrays(header, stream.read)
    for name in ("y", "z"):
        assert arrays[name].dtype == array.dtype
        assert not array.size or arrays[name].ctypes.data % 64 == 0
        np.testing.assert_array_equal(arrays[name], array)
    assert serve.decode_header(stream.read) is None


def test_objects_are_no_message() -> None:
    with pytest.raises(TypeError, match="dtype object; numbers only"):
        serve.encode({}, {"y": np.array([{}], object)})
    header = {"arrays": [{"name": "y", "dtype": "|O", "shape": [1]}]}
    with pytest.raises(TypeError, match="numbers only"):
        serve.receive_arrays(header, io.BytesIO(b"12345678").read)


def test_a_message_cut_short_is_an_error() -> None:
    whole = b"".join(serve.encode({"do": "x"}, {"y": np.arange(4.0)}))
    stream = io.BytesIO(whole[:-5])
    header = serve.decode_header(stream.read)
    assert header is not None
    with pytest.raises(EOFError, match="after 27 of 32 bytes"):
        serve.receive_arrays(header, stream.read)


def test_load_run_and_time(worker: Worker) -> None:
    assert load(worker) == {"version": "fake 1.0", "settings": "3 fp32  3", "arrays": []}
    worker.feed({"a": np.arange(3.0)})
    np.testing.assert_array_equal(worker.run()["a"], np.arange(3.0) * 3)
    assert worker.time(untimed=2) >= 0
    assert worker.call("double", value=[1]) == [1, 1]
    assert worker.wait_until_asleep(at_least_s=0.0, at_most_s=10.0)


def test_failures_are_told_and_survived(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="'feed' before 'load'"):
        worker.feed({})
    with pytest.raises(WorkerError, match="ValueError: no such operator: Frobnicate"):
        load(worker, "broken")
    with pytest.raises(WorkerError, match="KeyError"):
        worker.call("triple", value=1)
    assert load(worker)["version"] == "fake 1.0"


def test_a_rival_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import a_runtime_that_is_not_there\n")
    with start(path) as worker, pytest.raises(WorkerError, match="a_runtime_that_is_not_there"):
        load(worker)


def test_a_death_is_reported_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"exit status 3.*fatal: out of cheese"):
        load(worker, "dies")
    with pytest.raises(WorkerError, match="its process ended"):
        worker.time()


def test_a_worker_that_hangs_is_ended(worker: Worker) -> None:
    load(worker, "slow")
    worker.feed({"a": np.arange(3.0)})
    with pytest.raises(WorkerError, match=r"no answer within 0\.3 s"):
        worker.run(timeout_s=0.3)


def test_closing_twice_does_nothing(rival: Path) -> None:
    worker = start(rival)
    worker.close()
    worker.close()


def test_the_server_needs_numpy_alone() -> None:
    text = Path(serve.__file__).read_text()
    assert "tvmdet." not in "\n".join(line for line in text.splitlines() if "import" in line)
