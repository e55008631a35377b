"""Exit codes, and one message for each error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tvmdet
from tvmdet.cli import targets as targets_verb
from tvmdet.errors import ModelError


def test_version(run: Callable) -> None:
    done = run("--version")
    assert (done.code, done.out.strip(), done.err) == (0, f"tvmdet {tvmdet.__version__}", "")


def test_nothing_asked_is_wrong_usage_and_shows_the_verbs(run: Callable) -> None:
    done = run()
    assert done.code == 2
    for verb in ("doctor", "tune", "compile", "inspect", "detect", "eval", "targets"):
        assert f"  {verb} " in done.err


@pytest.mark.parametrize(
    "verb", ["doctor", "tune", "compile", "inspect", "detect", "eval", "targets"]
)
def test_help_of_each_verb(run: Callable, verb: str) -> None:
    done = run(verb, "--help")
    assert done.code == 0
    assert f"Usage: tvmdet {verb}" in done.out
    assert "--debug" in done.out
    assert "--json" in done.out


def test_an_interrupt_that_native_code_makes_an_error_of_is_one(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        raise ModelError("the network cannot be lowered: RuntimeError('')")

    # What a shell starts in the background ignores Ctrl-C, this run of the tests perhaps too.
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr("tvmdet.cli.app._run", interrupted)
        done = run("compile", "x.onnx")
        assert (done.code, done.error.strip()) == (130, "error: interrupted")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["detekt"], "No such command 'detekt'"),
        (["detect"], "Missing argument 'FILE.tvmdet'"),
        (["detect", "x.tvmdet"], "Missing argument 'SOURCE"),
        (["detect", "x.tvmdet", "y.png", "--score", "2"], "--score"),
        (["detect", "x.tvmdet", "y.png", "--threads", "0"], "--threads"),
        (["inspect", "x.tvmdet", "--frobnicate"], "No such option"),
        (["doctor", "x.onnx", "--size", "640,480"], "'640,480' is no size; give height x width"),
        (["doctor", "x.onnx", "--size", "0x640"], "'0x640' is no size"),
        (["compile", "x.onnx", "--batch", "1,two"], "'1,two' is no list of batch sizes"),
        (["compile", "x.onnx", "--target", "a,,b"], "'a,,b' is no list of targets"),
        (["tune", "x.onnx", "--budget", "soon"], "'soon' is no time; give seconds"),
        (["tune", "x.onnx", "--budget", "0s"], "'0s' is no time"),
        (["tune", "x.onnx", "--target", "x86-64-v3,x86-64-v4"], "tune one at a time"),
    ],
)
def test_wrong_usage(run: Callable, words: list[str], says: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert says in done.error
    assert "--help" in done.error
    assert done.out == ""


@pytest.mark.parametrize("verb", ["bench", "detect", "tune"])
def test_wrong_usage_names_the_help_of_the_verb(run: Callable, verb: str) -> None:
    wrong = {"bench": "--rounds", "detect": "--score", "tune": "--budget"}[verb]
    assert f"Try: tvmdet {verb} --help" in run(verb, "x", wrong).error


def break_targets(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(targets_verb.output, "table", broken)


def test_unforeseen_error_is_one_message_without_a_traceback(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_targets(monkeypatch, KeyError("lanes\nand more"))
    done = run("targets")
    assert done.code == 1
    assert "KeyError" in done.error
    assert "run again with --debug" in done.error


def test_debug_shows_the_traceback(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    break_targets(monkeypatch, tvmdet.TargetError("no such machine"))
    done = run("targets", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.endswith("error: no such machine\n")


def test_interrupt(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    break_targets(monkeypatch, KeyboardInterrupt())
    done = run("targets")
    assert (done.code, done.error) == (130, "error: interrupted\n")


def test_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m tvmdet targets --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("0", "1")  # 0 where it was all written before the reader left
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inspect", "missing.tvmdet"], "cannot be read"),
        (["detect", "missing.tvmdet", "x.png"], "cannot be read"),
        (["doctor", "missing.onnx"], ""),
        (["compile", "missing.onnx"], "missing.onnx"),
        (["tune", "missing.onnx"], "missing.onnx"),
    ],
)
def test_missing_file(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.code == 1
    if words[0] == "doctor":  # its problems are its result
        assert "missing.onnx" in done.out
    else:
        assert says in done.error
    assert list(tmp_path.iterdir()) == []
