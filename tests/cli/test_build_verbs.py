"""`tune` and `compile`: what reaches the functions, and what is printed."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_modules
from recorder import Recorder
from tvmdet.targets import Target

from tvmdet import compiler, tuning, untrusted
from tvmdet.compiler import CompileReport
from tvmdet.contain import Bounds
from tvmdet.errors import ParityError, UnsupportedOperatorError
from tvmdet.tuning import TuningProgress, TuningReport, plan


@pytest.fixture
def importer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Stands in for the reader of models, in a folder with a file ``x.onnx``."""
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").write_bytes(b"\x08\x08")
    model = SimpleNamespace(name="toy", spec=toy_modules.toy_spec(), recognition=("a toy",))
    recorder = Recorder(model)

    def start(*args: Any, **options: Any) -> Any:
        return nullcontext(SimpleNamespace(result=lambda: recorder(*args, **options)))

    monkeypatch.setattr(untrusted, "import_onnx", recorder)
    monkeypatch.setattr(untrusted, "start_import", start)
    return recorder


def tuning_report(**changes: Any) -> TuningReport:
    values: dict[str, Any] = {
        "target": "x86-64-v4",
        "threads": 2,
        "tasks": 40,
        "untunable": 3,
        "known_before": 31,
        "trials": 120,
        "new": 9,
        "improved": 12,
        "failed": (),
        "latency_before_s": 0.02,
        "latency_after_s": 0.01,
        "seconds": 61.0,
        "stopped": "budget",
    }
    return TuningReport(**{**values, **changes})


def compile_report(**changes: Any) -> CompileReport:
    values: dict[str, Any] = {
        "output": Path("toy.tvmdet"),
        "bytes": 3_000_000,
        "targets": ("x86-64-v3",),
        "batch_sizes": (1,),
        "tuning": {"x86-64-v3": {"tuned": 9, "default": 1}},
        "parity": {"x86-64-v3": {"skipped": "this machine lacks z80"}},
        "fallbacks": {},
    }
    return CompileReport(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("1.5m", 90)]
)
def test_tune_passes_its_options_on(
    run: Callable,
    importer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    seconds: float,
) -> None:
    recorder = Recorder(tuning_report())
    monkeypatch.setattr(tuning, "tune", recorder)
    words = ["--budget", text, "--batch", "4,1", "--threads", "2", "--logs", tmp_path]
    words += ["--precision", "bf16", "--target", "x86-64-v4"]
    done = run("tune", "x.onnx", "--size", "32x48", *words)
    assert done.code == 0
    assert callable(importer.options.pop("tell"))
    assert importer.options == {
        "spec": None,
        "size_hw": (32, 48),
        "raw": False,
        "batch_sizes": (1, 4),
        "bounds": Bounds(timeout_s=1800.0),
    }
    recorder.options.pop("progress")
    assert recorder.options == {
        "target": "x86-64-v4",
        "budget_s": seconds,
        "batch_sizes": (1, 4),
        "logs": tmp_path,
        "threads": 2,
        "precision": "bf16",
        "board": None,
        "cost_model": "measured",
    }
    assert "x86-64-v4, 2 threads" in done.out
    assert "40 to tune, 31 of them already known" in done.out
    assert "20 ms -> 10 ms (2.00x)" in done.out
    same = f"--batch 4,1 --size 32x48 --precision bf16 --logs {tmp_path}"
    assert f"next: tvmdet compile x.onnx --target x86-64-v4 {same} -o x.tvmdet" in done.out


def test_tune_says_what_more_time_would_bring(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tuning_report(recent_s=60.0, recent_gain=0.0123)
    monkeypatch.setattr(tuning, "tune", Recorder(report))
    assert "the last 1:00 of the search saved 1.2%" in run("tune", "x.onnx").out
    ended = dataclasses.replace(report, stopped="converged")
    monkeypatch.setattr(tuning, "tune", Recorder(ended))
    assert "more time" not in run("tune", "x.onnx").out


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"trials": 0}, 1),
        ({"trials": 1}, 0),
        ({"trials": 0, "stopped": "converged"}, 0),  # there was nothing to do
    ],
)
def test_a_budget_too_short_for_anything_fails_and_says_what_it_takes(
    run: Callable,
    importer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    code: int,
) -> None:
    report = tuning_report(tasks=81, known_before=1, spent_s={"list": 12.4}, **changes)
    monkeypatch.setattr(tuning, "tune", Recorder(report))
    for options in ([], ["--json"]):
        done = run("tune", "x.onnx", "--budget", "10", *options)
        assert done.code == code
        if code:
            assert "of a budget of 10 s, listing 81 kernels took 12 s" in done.error
            assert "give --budget 140s or more" in done.error
            assert "next:" not in done.out
    assert json.loads(done.out)["trials"] == changes["trials"]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"trials": 2, "new": 0}, True),
        ({"trials": 2, "new": 0, "stopped": "interrupted"}, False),
        ({"trials": 60, "new": 60}, False),
        ({"trials": 2, "new": 0, "known_before": 81}, False),
    ],
)
def test_a_budget_too_short_for_most_is_said(
    run: Callable,
    importer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    warned: bool,
) -> None:
    spent = {"list": 12.4, "build": 30.2, "run": 0.4}
    values = {"tasks": 81, "known_before": 1, "spent_s": spent, **changes}
    monkeypatch.setattr(tuning, "tune", Recorder(tuning_report(**values)))
    told = run("tune", "x.onnx", "--budget", "1m").err
    assert ("2 trials for 80 kernels that nobody had measured" in told) == warned
    if warned:
        assert "(list 12 s, build 30 s); to try each once takes about 140 s" in told


def test_tune_tells_how_far_it_is(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = TuningProgress(
        elapsed_s=30.0,
        budget_s=60.0,
        trials=55,
        tasks_done=3,
        tasks_total=40,
        known="31 of 40 tasks already known",
        task="conv",
        latency_s=0.01,
        latency_start_s=0.02,
        eta_s=30.4,
    )

    def fake(_model: Any, *, progress: Callable, **_: Any) -> TuningReport:
        progress(now)
        return tuning_report()

    monkeypatch.setattr("tvmdet.cli.progress._QUIET_S", -1.0)
    monkeypatch.setattr("tvmdet.cli.progress._LINE_EVERY_S", -1.0)
    monkeypatch.setattr(tuning, "tune", fake)
    told = run("tune", "x.onnx").err
    line = "0:30 left | 55 trials | kernels 20 ms -> 10 ms | 31 of 40 tasks already known"
    assert line in told


def test_tune_interrupted(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "tune", Recorder(tuning_report(stopped="interrupted")))
    done = run("tune", "x.onnx")
    assert done.code == 130
    assert "interrupted after 120 trials. " in done.error
    assert "Every measured trial is kept; the same command goes on from there" in done.error
    once = tuning_report(stopped="interrupted", trials=1, threads=1)
    monkeypatch.setattr(tuning, "tune", Recorder(once))
    done = run("tune", "x.onnx")
    assert "interrupted after 1 trial. " in done.error
    assert "x86-64-v4, 1 thread " in done.out
    monkeypatch.setattr(tuning, "tune", Recorder(KeyboardInterrupt()))
    done = run("tune", "x.onnx")
    assert done.code == 130
    assert "Every measured trial is kept" in done.error


def test_tune_names_the_kernels_that_failed(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tuning_report(failed=(("conv 3x3", "build: no memory"),))
    monkeypatch.setattr(tuning, "tune", Recorder(report))
    done = run("tune", "x.onnx")
    assert done.code == 0
    assert "warning: conv 3x3 keeps its default schedule: build: no memory" in done.err


def test_compile_passes_its_options_on(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Recorder(compile_report())
    monkeypatch.setattr(compiler, "compile", recorder)
    words = ["--target", "x86-64-v4,zen4", "--batch", "1,4", "--images", tmp_path, "-o", "y.tvmdet"]
    words += ["--precision", "bf16"]
    done = run("compile", "x.onnx", "--spec", "s.toml", *words)
    assert done.code == 0
    assert importer.options["spec"] == Path("s.toml")
    recorder.options.pop("progress")
    assert recorder.options == {
        "target": ("x86-64-v4", "zen4"),
        "batch_sizes": (1, 4),
        "output": Path("y.tvmdet"),
        "images": tmp_path,
        "logs": None,
        "threads": None,
        "precision": "bf16",
        "tolerance": None,
    }
    assert "toy.tvmdet (3.0 MB)" in done.out
    assert "not checked" in done.out
    (said,) = (line for line in done.err.splitlines() if line.startswith("warning"))
    assert "x86-64-v3 was not compared with ONNX Runtime, this machine lacks z80; compile" in said
    assert json.loads(run("compile", "x.onnx", "--json").out)["bytes"] == 3_000_000


@pytest.mark.parametrize(
    ("parity", "step"),
    [
        ({"a": {"skipped": "this machine lacks z80"}}, "inspect toy.tvmdet --here"),
        ({"a": {"boxes": 1, "emulated": "qemu-aarch64"}}, "inspect toy.tvmdet --here"),
        ({"a": {"skipped": "this machine lacks z80"}, "b": {"boxes": 1}}, "detect toy.tvmdet"),
    ],
)
def test_what_runs_nowhere_here_is_not_offered_to_be_run(
    run: Callable,
    importer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    parity: dict[str, Any],
    step: str,
) -> None:
    names = tuple(parity)
    tuning = {name: {"tuned": 1} for name in names}
    report = compile_report(targets=names, parity=parity, tuning=tuning)
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    assert f"next: tvmdet {step}" in run("compile", "x.onnx").out


def test_compile_lists_the_records_that_it_passed_over(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compile_report(fallbacks={"x86-64-v3": {"fused_conv2d_3": "tile 9 is not allowed"}})
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    done = run("compile", "x.onnx", "--batch", "1,4")
    assert done.code == 0
    assert "fused_conv2d_3" in done.out
    assert "tile 9 is not allowed" in done.out
    assert "warning: 1 tuning record for x86-64-v3 cannot be used" in done.err
    assert "tvmdet tune x.onnx --target x86-64-v3 --batch 1,4" in done.err


def test_compile_says_when_most_kernels_are_untuned(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compile_report(tuning={"x86-64-v3": {"tuned": 1, "borrowed": 3, "default": 9}})
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    told = run("compile", "x.onnx").err
    assert "12 of 13 kernels not tuned for x86-64-v3" in told
    assert "tvmdet tune x.onnx --target x86-64-v3, and compile again" in told
    report = dataclasses.replace(report, precisions={"x86-64-v3": "bf16"})
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    told = run("compile", "x.onnx", "--precision", "bf16", "--target", "x86-64-v4").err
    assert "tvmdet tune x.onnx --target x86-64-v3 --precision bf16, and compile again" in told


def test_compile_takes_a_precision_of_each_target(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ("x86-64-v3", "cortex-a76", "sm_90")
    precisions = {"x86-64-v3": "fp32", "cortex-a76": "fp16", "sm_90": "tf32"}
    tuning = {name: {"default": 9} for name in targets}
    recorder = Recorder(compile_report(targets=targets, tuning=tuning, precisions=precisions))
    monkeypatch.setattr(compiler, "compile", recorder)
    said = "cortex-a76=fp16, sm_90=tf32"
    done = run("compile", "x.onnx", "--target", ",".join(targets), "--precision", said)
    assert done.code == 0
    assert recorder.options["precision"] == {"cortex-a76": "fp16", "sm_90": "tf32"}
    assert "--target x86-64-v3, and compile" in done.err
    assert "--target cortex-a76 --precision fp16 --rpc" in done.err
    assert "--target sm_90 --precision tf32 --plan" in done.err
    assert re.search(r"sm_90 +tf32", done.out)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--precision", "bf16,fp32"], 2, "no precision; give one for all targets"),
        (["--precision", "sm_90="], 2, "no precision"),
        (["--precision", "zen4=bf16,zen4=fp32"], 2, "no precision"),
        (["--precision", "zen4=bf16"], 1, "a precision is given for 'zen4', which is not"),
        (["--precision", "x86-64-v4=int3"], 1, "cannot compute in 'int3'"),
        (
            ["--precision", "x86-64-v4=bf16", "--raw", "--tolerance", "1"],
            2,
            "that of bf16 and fp32",
        ),
        (
            ["--precision", "fp16"],
            1,
            "x86-64-v4 cannot compute in 'fp16'; it can in fp32 and bf16; say it of the others "
            "only: --precision sm_90=fp16",
        ),
    ],
)
def test_precisions_that_cannot_be(
    run: Callable, importer: Recorder, words: list[str], code: int, says: str
) -> None:
    done = run("compile", "x.onnx", "--target", "x86-64-v4,sm_90", *words)
    assert done.code == code
    assert says in " ".join(done.err.split())


def test_compile_says_when_most_kernels_were_measured_elsewhere(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compile_report(tuning={"x86-64-v3": {"tuned": 1, "elsewhere": 9, "near": 2}})
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    told = run("compile", "x.onnx").err
    assert "9 of 12 kernels for x86-64-v3 measured on another processor" in told
    assert "tvmdet tune x.onnx --target x86-64-v3, and compile again" in told
    monkeypatch.setattr(Target, "missing_features", lambda _self: ("something",))
    assert "another processor" not in run("compile", "x.onnx", "--target", "x86-64-v3").err


@pytest.mark.parametrize(
    ("target", "asks"),
    [
        (
            "cortex-a76",
            "--target cortex-a76 --rpc HOST:PORT (a board; or, without one",
        ),
        ("sm_90", "--target sm_90 --plan FOLDER"),
        ("zen4", "--target zen4 on a machine that runs it"),
    ],
)
def test_what_is_suggested_for_another_machine_works(
    run: Callable,
    importer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    asks: str,
) -> None:
    monkeypatch.setattr(Target, "missing_features", lambda _self: ("something",))
    report = compile_report(targets=(target,), tuning={target: {"default": 9}})
    monkeypatch.setattr(compiler, "compile", Recorder(report))
    assert asks in run("compile", "x.onnx", "--target", target).err


@pytest.mark.parametrize("verb", ["tune", "compile"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nofile.onnx"], "there is no file nofile.onnx"),
        (["."], ". is a folder; give the .onnx file in it"),
        (["weights.pt"], "weights.pt is a zip or a pickle, as checkpoints of PyTorch"),
        (["old.pth"], "old.pth is a zip or a pickle"),
        (["empty.onnx"], "empty.onnx is empty"),
        (["x.onnx", "--target", "frobnicator"], "unknown target 'frobnicator'"),
        (["x.onnx", "--precision", "int3"], "cannot compute in 'int3'"),
    ],
)
def test_what_is_plainly_wrong_is_said_before_a_model_is_read(
    run: Callable, importer: Recorder, verb: str, words: list[str], says: str
) -> None:
    Path("weights.pt").write_bytes(b"PK\x03\x04archive/data.pkl")
    Path("old.pth").write_bytes(pickle.dumps({"weight": 1.0}))
    Path("empty.onnx").touch()
    done = run(verb, *words)
    assert (done.code, importer.args) == (1, ())
    assert says in done.error


@pytest.mark.parametrize(
    ("place", "says"),
    [("there/y.tvmdet", "make the folder there"), (".", "give -o a file in it")],
)
def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_read(
    run: Callable, importer: Recorder, place: str, says: str
) -> None:
    done = run("compile", "x.onnx", "-o", place)
    assert (done.code, importer.args) == (1, ())
    assert says in done.error


@pytest.mark.parametrize(
    "error",
    [ParityError("page.png: box 3 differs"), UnsupportedOperatorError("node 'l' (Loop): cut it")],
)
def test_compile_that_fails(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(compiler, "compile", Recorder(error))
    done = run("compile", "x.onnx")
    assert (done.code, done.out) == (1, "")
    assert done.error == f"error: {error}\n"


def test_tune_makes_a_plan_to_be_measured_elsewhere(
    run: Callable, importer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.PlanReport(
        folder="there", target="sm_90", tasks=3, candidates=12, failed=(("conv", "no tile"),)
    )
    recorder = Recorder(made)
    monkeypatch.setattr(plan, "make_plan", recorder)
    words = ["--target", "sm_90", "--plan", "there", "--candidates", "4", "--precision", "fp16"]
    done = run("tune", "x.onnx", *words)
    assert done.code == 0
    recorder.options.pop("progress")
    assert recorder.options == {
        "target": "sm_90",
        "folder": Path("there"),
        "batch_sizes": (1,),
        "candidates": 4,
        "logs": None,
        "precision": "fp16",
    }
    assert "3, 12 candidates" in done.out
    assert "run: python there/measure.py" in done.out
    assert "conv is not in the plan: no tile" in done.err
    assert "next: tvmdet tune --collect there" in done.out


def test_tune_takes_a_plans_results_back_without_a_model(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan.CollectReport(
        target="sm_90", device="NVIDIA H100", measured=10, failed=1, missing=1, new=11
    )
    monkeypatch.setattr(plan, "collect_plan", Recorder(found))
    done = run("tune", "--collect", "there")
    assert done.code == 0
    assert "sm_90, measured on NVIDIA H100" in done.out
    assert "10 ran, 1 failed, 1 to do" in done.out
    assert "next: tvmdet compile MODEL.onnx --target sm_90" in done.out


def test_tune_needs_a_model_or_a_plan(run: Callable) -> None:
    done = run("tune")
    assert done.code == 2
    assert "name a model, or a measured plan with --collect DIR" in done.err
