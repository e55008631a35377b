"""`bench --rpc` and `verify` on a board: this machine behind an RPC address, timed for real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from native_board import compile_server, serve

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.kernel_files import KernelFiles
from tvmdet.board.module import BoardModule
from tvmdet.board.session import BoardAddress, board_threads, connect
from tvmdet.cli import main
from tvmdet.cpus import cpu_model
from tvmdet.errors import InputError, TargetError
from tvmdet.report import BenchOptions, Plan, VerifyOptions, bench, load_result, verify
from tvmdet.report.board_machine import why_emulated
from tvmdet.report.machine import describe_machine
from tvmdet.report.pages import ReportOptions, write_report
from tvmdet.report.serve_profile import entry_of

ROUNDS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def board(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardAddress]:
    with serve(server, tmp_path_factory.mktemp("board"), key="mine") as address:
        yield address


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_models.save(onnx_models.yolov8(), tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="module")
def detector(onnx_path: Path) -> Path:
    path = onnx_path.with_suffix(".tvmdet")
    tvmdet.compile(tvmdet.import_onnx(onnx_path), target="host", output=path)
    return path


@pytest.fixture(scope="module")
def result(detector: Path, onnx_path: Path, board: BoardAddress) -> Path:
    path = detector.with_suffix(".json")
    words = ["bench", detector, "--onnx", onnx_path, "--rpc", board, "--key", board.key]
    words += ["--rounds", ROUNDS, "--json", path, "--price", "0.02 EUR"]
    assert main([str(word) for word in words]) == 0
    return path


def test_network_and_detector_are_timed_by_the_boards_clock(
    result: Path, board: BoardAddress
) -> None:
    found = load_result(result)
    assert [table.what for table in found.tables] == ["network", "array to boxes"]
    assert found.threads == board_threads(board)
    for table in found.tables:
        (ours,) = table.entries
        assert ours.latency is not None
        assert ours.latency.count == len(ours.rounds_us) == ROUNDS
        assert 0 < ours.latency.min_ms <= ours.latency.median_ms
        assert ours.memory_peak_bytes is not None
        assert ours.memory_peak_bytes > 1 << 20
        assert table.noise is not None
        assert len(table.noise.rounds_us) == ROUNDS
        assert len(table.disturbance.yardstick_us) == ROUNDS
        assert table.answers
    network, whole = found.tables
    assert network.entries[0].agreement is not None
    assert network.entries[0].agreement.ok
    assert network.entries[0].gflops is not None
    assert "are in it, decoding" in whole.note
    boxes = int(whole.note.split()[3])
    assert boxes == len(whole.answers["scores"]) > 0, "suppression has something to do"


def test_the_result_names_the_board(result: Path, board: BoardAddress) -> None:
    found = load_result(result)
    assert found.setup is not None
    assert (found.setup.board, found.setup.board_key) == (str(board), "mine")
    here = describe_machine()
    assert found.machine.cpu == here["cpu"] == cpu_model()
    assert found.machine.memory_bytes == here["memory_bytes"]
    assert list(found.machine.features) == here["features"]
    assert found.machine.cpus_online == here["cpus_online"]
    assert found.prices is not None
    assert found.prices.currency == "EUR"


def test_sending_arrays_is_not_in_the_times(raw_path: Path, board: BoardAddress) -> None:
    artifact = Artifact.open(raw_path)
    function, arguments = entry_of(artifact, 1)
    module = BoardModule(artifact, artifact.targets[0], board, 1)
    seconds = module.timer(function, arguments)
    module._send = None  # type: ignore[method-assign]  # whoever sends now, fails
    assert 0 < seconds() < 10
    module.close()
    with pytest.raises(InputError, match="is closed"):
        seconds()


def test_a_local_result_is_not_verified_on_a_board(result: Path, board: BoardAddress) -> None:
    recorded = load_result(result)
    assert recorded.setup is not None
    local = replace(recorded, setup=replace(recorded.setup, board=None))
    with pytest.raises(InputError, match="was measured without --rpc"):
        verify(local, VerifyOptions(board=board))


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_report_has_its_row(result: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"report.{form}"
    write_report([result], path, ReportOptions())
    assert "array to boxes" in path.read_text()


def test_it_is_verified_on_its_board(result: Path, board: BoardAddress) -> None:
    recorded = load_result(result)
    found = verify(recorded, VerifyOptions(rounds=ROUNDS, attempts=1))
    assert found.parity == ()
    assert found.report.setup.board == str(board)
    assert [change.what for change in found.changes] == [
        "network, batch 1",
        "array to boxes, batch 1",
    ]
    other = replace(recorded, machine=replace(recorded.machine, cpu="Another Processor"))
    with pytest.raises(InputError, match=r"another machine: .*nothing there; record it anew there"):
        verify(other, VerifyOptions(rounds=ROUNDS))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"per_layer": True}, "--per-layer"),
        ({"against": ("onnxruntime",), "onnx": Path("any.onnx")}, "--against"),
        ({"picture": Path("any.png")}, "--picture"),
    ],
)
def test_what_is_not_done_on_a_board_is_refused(
    raw_path: Path, board: BoardAddress, change: dict[str, Any], name: str
) -> None:
    options = replace(BenchOptions(board=board), **change)
    with pytest.raises(InputError, match=f"leave out {name}, or install tvmdet on the board"):
        bench(raw_path, options)


def test_a_file_with_nothing_for_the_board(
    raw_path: Path, board: BoardAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvmdet.report import bench_board

    def poor(files: KernelFiles) -> Any:
        return replace(bench_board_host(files), features=frozenset(), arch="riscv64")

    bench_board_host = bench_board.board_host
    monkeypatch.setattr(bench_board, "board_host", poor)
    said = r"cannot run on the board\. It holds .*the board is riscv64.*--target NAME"
    with pytest.raises(TargetError, match=said):
        bench(raw_path, BenchOptions(board=board))


def test_a_board_that_goes_away_meanwhile(raw_path: Path, server: Path, tmp_path: Path) -> None:
    with serve(server, tmp_path) as address:
        files = KernelFiles(connect(address), address)
        assert files.text("/proc/self/stat")
    with pytest.raises(TargetError, match=rf"{re.escape(str(address))} does not read /proc/stat"):
        files.text("/proc/stat")
    with pytest.raises(TargetError, match="does not answer"):
        files.time_yardstick()
    options = BenchOptions(board=address, plan=Plan(rounds=ROUNDS))
    with pytest.raises(TargetError, match="no RPC server"):
        bench(raw_path, options)


def test_files_of_the_kernel_are_read(board: BoardAddress) -> None:
    files = KernelFiles(connect(board), board)
    assert files.read("/proc/self/exe").startswith(b"\x7fELF")
    assert files.read("/proc/no such file") == b""
    for path in ("/etc/hostname", "/proc/../etc/hostname", "../up"):
        with pytest.raises(TargetError, match="expected a file of /proc or /sys"):
            files.read(path)
    assert 0 < files.time_yardstick() < 1


class OtherServer:
    """A session with TVM's own server, or with an older kit's."""

    def get_function(self, name: str) -> Any:
        raise AttributeError(f"no function {name}")


def test_other_servers(board: BoardAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmdet.report import bench_board

    monkeypatch.setattr(bench_board, "connect", lambda _address: OtherServer())
    with pytest.raises(TargetError, match="is not that of this version's board kit"):
        bench_board.read_board(board)


@pytest.mark.arm
def test_times_of_an_emulated_board_are_refused(raw_path: Path) -> None:
    if missing := why_no_emulator():
        pytest.skip(missing)
    with Emulator("cortex-a76") as emulated:
        address = BoardAddress(host="127.0.0.1", port=emulated.port)
        files = KernelFiles(connect(address), address)
        assert "aarch64" in why_emulated(files)
        with pytest.raises(InputError, match=r"is emulated .*instructions counted"):
            bench(raw_path, BenchOptions(board=address))


def test_a_key_alone_names_no_board(raw_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(raw_path), "--key", "mine"]) == 2
    assert "give --rpc too" in capsys.readouterr().err


def test_the_json_is_whole(result: Path) -> None:
    setup = json.loads(result.read_text())["setup"]
    assert setup["rounds"] == ROUNDS
    assert setup["onnx"]
