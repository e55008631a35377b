"""Contained work: what comes back, and what becomes of work that dies."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tvmdet import contain
from tvmdet.contain import Bounds, available_memory_bytes, start
from tvmdet.errors import InputError, ModelError, ShapeError

MEGABYTE = 2**20


def work(name: str, *args: Any, **options: Any) -> Any:
    with start("importing m.onnx", f"contained_work:{name}", *args, **options) as started:
        return started.result()


def test_result_comes_back_from_another_process() -> None:
    steps: list[str] = []
    total, process = work("add", 2, right=3, tell=steps.append)
    assert total == 5
    assert process != os.getpid()
    assert steps == ["adding"]


def test_an_answer_comes_though_nobody_reads_the_steps() -> None:
    def tell(step: str) -> None:
        raise BrokenPipeError(step)

    assert work("add", 2, right=3, tell=tell)[0] == 5


def test_large_results_come_back_whole() -> None:
    with start("a", "builtins:bytes", 50 * MEGABYTE) as started:
        assert started.result() == bytes(50 * MEGABYTE)


def test_own_errors_are_raised_here() -> None:
    with pytest.raises(ShapeError, match=r"^the rank is 7$"):
        work("refuse")


def test_unforeseen_errors_name_the_step(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tvmdet.contain")
    with pytest.raises(ModelError, match="failed while failing: KeyError: 'surprise'; the file is"):
        work("fail")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "crash",
            r"importing m\.onnx crashed native code \(SIGSEGV.*\) while TVM imports node 'x' "
            r"\(Conv\); the file is damaged, or .* report it",
        ),
        ("abort", r"\(SIGABRT, saying 'what\(\):  vector::_M_default_append'\) while ONNX infers"),
        ("leave", r"\(exit status 7\) while it starts"),
        ("stop", "was killed while it starts, as the system does when memory runs out"),
    ],
)
def test_death_becomes_an_error(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        work(name)


def test_time_is_bounded() -> None:
    began = time.monotonic()
    message = "took longer than 3 s and was stopped while onnxslim simplifies .*--timeout"
    with pytest.raises(ModelError, match=message):
        work("wait", bounds=Bounds(timeout_s=3.0))
    assert time.monotonic() - began < 60


def test_memory_is_bounded() -> None:
    bounds = Bounds(memory_bytes=500 * MEGABYTE)
    assert work("grow", 100 * MEGABYTE, bounds=bounds) == 100 * MEGABYTE
    with pytest.raises(ModelError, match=r"needs more memory than the 0\.5 GB .* while ONNX Runt"):
        work("grow", 900 * MEGABYTE, bounds=bounds)


def test_nobody_is_left_behind() -> None:
    with start("waiting", "contained_work:wait") as started:
        process = started._process
    assert process.returncode == -9


def test_work_ends_with_who_asked_for_it() -> None:
    script = (
        "import os, sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from tvmdet.contain import start\n"
        "work = start('waiting', 'contained_work:wait')\n"
        "print(work._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    process = Path("/proc") / done.stdout.decode().strip()
    deadline = time.monotonic() + 60
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process.exists()


@pytest.mark.parametrize("bad", [{"timeout_s": 0.0}, {"timeout_s": float("nan")}])
def test_bounds_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="positive number of seconds"):
        Bounds(**bad)
    with pytest.raises(InputError, match="memory_bytes is 0"):
        Bounds(memory_bytes=0)


def test_memory_of_the_machine_and_of_the_group(tmp_path: Path) -> None:
    assert (available_memory_bytes() or 0) >= 2**30
    assert contain._free_of_group(tmp_path) is None
    for name, text in {
        "memory.max": "5000\n",
        "memory.current": "3000\n",
        "memory.stat": "anon 1000\ninactive_file 700\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert contain._free_of_group(tmp_path) == 2700
    (tmp_path / "memory.max").write_text("max\n")
    assert contain._free_of_group(tmp_path) is None
