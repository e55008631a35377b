"""`tvmdet tune --rpc`: addresses at which no board answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tvmdet.errors import TargetError
from tvmdet.tuning import tune


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A model that must not be read: what is wrong with the address is told first."""
    return tmp_path / "never read.onnx"


def test_an_address_that_refuses(run: Callable, no_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run("tune", no_model, "--target", "cortex-a76", "--rpc", f"127.0.0.1:{port}")
    assert done.code == 1
    assert f"no RPC server answers at 127.0.0.1:{port}: the connection is refused" in done.error
    assert "docs/arm.md" in done.error


def test_what_is_no_address(run: Callable, no_model: Path) -> None:
    done = run("tune", no_model, "--target", "cortex-a76", "--rpc", "my-board")
    assert done.code == 1
    assert "'my-board' is no address of an RPC server; give host and port" in done.error


def test_a_key_without_a_board(run: Callable, no_model: Path) -> None:
    done = run("tune", no_model, "--key", "pi5")
    assert done.code == 2
    assert "give --rpc too" in done.err


def test_tuning_for_another_machine_without_a_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where no linker is, none is asked for either

    class Model:
        name = "any"

    with pytest.raises(TargetError, match=r"or over RPC \(--rpc HOST:PORT\)"):
        tune(Model(), target="neoverse-v2", budget_s=1.0, logs=tmp_path)


def test_predicting_cycles_of_what_is_no_arm_core(run: Callable, no_model: Path) -> None:
    words = ("tune", no_model, "--cost-model", "static", "--target")
    done = run(*words, "x86-64-v3")
    assert done.code == 1
    assert "cycles are predicted for ARM cores only, and x86-64-v3 is none" in done.error
    done = run("tune", no_model, "--target", "cortex-a76", "--cost-model", "guess")
    assert done.code == 1
    assert "no cost model is called 'guess'; there are: measured, static" in done.error
    done = run(*words, "cortex-a76", "--plan", "somewhere")
    assert done.code == 2
    assert "--plan and --cost-model exclude each other" in " ".join(done.err.split())
