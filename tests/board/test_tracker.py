"""Boards that TVM's own RPC tracker gives: tuned on, benched on, dead and asked for again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import onnx_models
import pytest
from native_board import compile_server, serve
from test_rpc_tuning import TARGET, records, task, tune

import tvmdet
from tvmdet.board import session
from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.session import BoardAddress, board_threads, connect
from tvmdet.board.tracker import request_board
from tvmdet.cli import main
from tvmdet.errors import InputError, TargetError
from tvmdet.report import load_result
from tvmdet.tuning import TuningProgress
from tvmdet.tuning.task import Task

__all__ = ["task"]

KEY = "pi5"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_board(tracker: BoardAddress, timeout_s: float = 30.0) -> None:
    """Waits until a board is registered; none is taken."""
    end = time.monotonic() + timeout_s
    while True:
        with pytest.raises(TargetError) as caught:
            request_board(tracker.host, tracker.port, "of nobody", 1.0)
        if tracker.key in str(caught.value).partition("it has: ")[2]:
            return
        assert time.monotonic() < end, str(caught.value)
        time.sleep(0.1)


@pytest.fixture
def tracker() -> Iterator[BoardAddress]:
    """A tracker in a process of its own, which has no board yet."""
    port = free_port()
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--silent"]
    command += ["--port", str(port), "--port-end", str(port + 1)]
    process = subprocess.Popen(command, start_new_session=True)
    address = BoardAddress(host="127.0.0.1", port=port, key=KEY, tracked=True)
    try:
        end = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield address
    finally:
        session._leases.clear()
        os.killpg(process.pid, signal.SIGKILL)  # it serves in a child
        process.wait()


def place(tracker: BoardAddress) -> str:
    return f"{tracker.host}:{tracker.port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(tmp_path_factory.mktemp("server"))


@pytest.mark.arm
def test_a_board_that_dies_is_asked_for_again(
    task: Task, tracker: BoardAddress, tmp_path: Path
) -> None:
    """Another of its key, at another port, comes up while tuning waits."""
    if missing := why_no_emulator():
        pytest.skip(missing)
    core = TARGET.tvm["mcpu"]
    boards = [Emulator(core, key=KEY, tracker=place(tracker))]
    wait_for_board(tracker)

    def die() -> None:
        boards[0].close()
        time.sleep(1.0)
        boards.append(Emulator(core, key=KEY, tracker=place(tracker)))

    death = threading.Thread(target=die)

    def progress(now: TuningProgress) -> None:
        if now.trials == 4 and not death.ident:
            death.start()  # beside the next trial

    try:
        report = tune(task, tmp_path, tracker, 240.0, progress)
    finally:
        death.join()
        for board in boards:
            board.close()
    assert len(boards) == 2
    found = records(tmp_path)
    ran = [record for record in found if "error" not in record]
    assert {record["error_kind"] for record in found if "error" in record} <= {"lost"}
    assert len(found) - len(ran) <= 1, "one trial was running"
    assert report.trials == len(found)
    assert len(ran) >= len(task.decisions) - 1


def test_bench_measures_on_a_board_that_the_tracker_gives(
    server: Path, tracker: BoardAddress, tmp_path: Path
) -> None:
    onnx = onnx_models.save(onnx_models.yolov8(), tmp_path / "small.onnx")
    file = tmp_path / "small.tvmdet"
    tvmdet.compile(tvmdet.import_onnx(onnx), target="host", output=file)
    words = ["bench", file, "--rpc", tracker, "--key", KEY, "--rounds", 3]
    words += ["--json", tmp_path / "board.json"]
    with serve(server, tmp_path, key=KEY, tracker=place(tracker)):
        wait_for_board(tracker)
        assert main([str(word) for word in words]) == 0
    found = load_result(tmp_path / "board.json")
    assert found.setup is not None
    assert (found.setup.board, found.setup.board_key) == (f"tracker://{place(tracker)}", KEY)
    assert [len(table.entries[0].rounds_us) for table in found.tables] == [3]


def test_one_at_a_time_and_the_next_when_nobody_is_connected(
    server: Path, tracker: BoardAddress, tmp_path: Path
) -> None:
    with serve(server, tmp_path, key=KEY, tracker=place(tracker)) as board:
        wait_for_board(tracker)
        ours, again = connect(tracker), connect(tracker)
        assert session.lease(tracker).port == board.port
        with pytest.raises(TargetError, match=r"of 1 board of the key 'pi5' .* none gets free"):
            request_board(tracker.host, tracker.port, KEY, 0.5)
        with pytest.raises(TargetError, match="does not serve the key"):
            BoardAddress(host=board.host, port=board.port, key=KEY).check()
        del ours, again
        started = time.monotonic()
        _, port, theirs = request_board(tracker.host, tracker.port, KEY, 20.0)
        assert port == board.port
        assert time.monotonic() - started > 1.0, "a client may come back at once"
        # Given to somebody who never comes: it is free again after a while.
        assert request_board(tracker.host, tracker.port, KEY, 30.0)[2] != theirs


def test_tvms_own_server_takes_one_connection_after_another(tracker: BoardAddress) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--silent", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--port-end", str(port + 1)]
    command += ["--tracker", place(tracker), "--key", KEY]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_for_board(tracker, 60.0)
        tracker.check()
        assert board_threads(tracker) >= 1
        assert board_threads(tracker) >= 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_tracker_that_has_none_of_the_key(tracker: BoardAddress) -> None:
    with pytest.raises(TargetError, match=r"has no board of the key 'pi5'; it has: none at all"):
        tracker.check()


def test_what_is_no_tracker() -> None:
    with pytest.raises(TargetError, match=r"no RPC tracker answers at 127.0.0.1:\d+: .* refused"):
        BoardAddress.parse(f"tracker://127.0.0.1:{free_port()}", KEY).check()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = BoardAddress.parse(f"tracker://127.0.0.1:{listener.getsockname()[1]}", KEY)
        with pytest.raises(TargetError, match="cannot be asked for a board: timed out"):
            address.check(0.3)
    with pytest.raises(InputError, match=r"give the one to ask tracker://a:1 for \(--key\)"):
        BoardAddress.parse("tracker://a:1")
    assert str(BoardAddress.parse("tracker://a:1", KEY)) == "tracker://a:1"
