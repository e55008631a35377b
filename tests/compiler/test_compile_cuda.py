"""Detectors compiled for GPUs where there is none: what is written, checked and refused."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_models
import pytest
import tvm
from scheduled_kernels import lower_network
from tvm import relax
from tvmdet.targets import get_target

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.compiler import compile as compiler_compile
from tvmdet.compiler.check_on_cuda_emulator import check_on_cuda_emulator
from tvmdet.compiler.schedule import schedule_kernels
from tvmdet.cuda.device_code import device_code
from tvmdet.cuda.embed import with_compiled_kernels
from tvmdet.cuda.nvcc import compile_to_ptx, compile_with_nvcc, find_nvcc
from tvmdet.errors import ModelError, ShapeError, TargetError, UnsupportedOperatorError
from tvmdet.gpus import GpuNeeds, find_gpus
from tvmdet.passes.cuda.check_on_device import check_on_device
from tvmdet.passes.lower import lower, tvm_target
from tvmdet.tuning.store import TuningStore

SMS = ("sm_75", "sm_80", "sm_86", "jetson-orin", "sm_89", "sm_90")


def _has_nvcc() -> bool:
    try:
        find_nvcc()
    except TargetError:
        return False
    return True


needs_nvcc = pytest.mark.skipif(not _has_nvcc(), reason="nvcc is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    return tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(batch="n"), path))


@pytest.fixture(scope="module")
def scheduled_at(model: Any) -> Callable[[str], tvm.IRModule]:
    """A whole detector for batches of 1 and 2, its kernels scheduled for a GPU in a precision."""

    @functools.cache
    def schedule(precision: str) -> tvm.IRModule:
        target = get_target("sm_90").at_precision(precision)
        module = lower(model, (1, 2), target)
        return schedule_kernels(module, target, TuningStore(), threads=1).module

    return schedule


@pytest.fixture
def scheduled(scheduled_at: Callable[[str], tvm.IRModule]) -> tvm.IRModule:
    """The detector in float16."""
    return scheduled_at("fp16")


def test_between_upload_and_download_everything_is_on_the_device(scheduled: tvm.IRModule) -> None:
    check_on_device(scheduled)
    called: list[str] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            called.append(str(expr.op.name))

    for size in (1, 2):
        relax.analysis.post_order_visit(scheduled[f"detect_b{size}"], visit)
    assert set(called) <= {"relax.call_tir", "relax.reshape"}
    assert called.count("relax.call_tir") > 10


def test_a_kernel_without_threads_is_named(scheduled: tvm.IRModule) -> None:
    host = lower_network(
        lambda builder, x: builder.emit(relax.op.nn.relu(x)),
        [np.zeros((1, 4, 4, 8), "float32")],
        get_target("x86-64-v3"),
    )
    with pytest.raises(UnsupportedOperatorError, match="kernel relu is not bound to threads"):
        check_on_device(host)


@pytest.mark.parametrize(("rows", "launched"), [(65535, True), (65536, False)])
@pytest.mark.parametrize("axis", ["y", "z"])
def test_a_grid_that_no_gpu_launches_is_refused(axis: str, rows: int, launched: bool) -> None:
    """Rows of a top-k are blocks along y, and products of one call, as attention has, along z."""

    def emit(builder: Any, x: Any) -> Any:
        if axis == "y":
            return builder.emit(relax.op.topk(x, k=4096, axis=-1, ret_type="values"))
        return builder.emit(relax.op.matmul(x, relax.op.permute_dims(x, (0, 2, 1))))

    shape = (rows, 5000) if axis == "y" else (rows, 4, 4)
    target = get_target("sm_90")
    network = lower_network(emit, [np.broadcast_to(np.float32(0), shape)], target)
    kernels = schedule_kernels(network, target, TuningStore(), threads=1).module
    if launched:
        check_on_device(kernels)
        return
    with pytest.raises(ShapeError, match=rf"takes 65536 blocks along blockIdx\.{axis}, and a GPU"):
        check_on_device(kernels)


def test_compiled_kernels_take_the_place_of_their_source() -> None:
    def text(data: bytes) -> bytes:
        return len(data).to_bytes(8, "little") + data

    source, facts = "__global__ void f() {}", b"what each kernel takes"
    body = text(b"cuda") + facts + text(source.encode())
    rest = text(b"_lib") + text(b"cuda") + text(body) + b"after"
    stored = len(rest).to_bytes(8, "little") + rest
    got = with_compiled_kernels(stored, source, b"\x00machine code")
    assert int.from_bytes(got[:8], "little") == len(got) - 8
    wanted = text(b"fatbin") + facts + text(b"\x00machine code")
    assert got[8:] == text(b"_lib") + text(b"cuda") + text(wanted) + b"after"
    with pytest.raises(ModelError, match="in a form that tvmdet does not know"):
        with_compiled_kernels(stored, "another source", b"code")


def test_a_missing_nvcc_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("tvmdet.cuda.nvcc._PLACES", ())
    with pytest.raises(TargetError, match=r"nvcc, which is not here; install the CUDA toolkit"):
        find_nvcc()


def test_a_missing_nvcc_is_told_before_anything_is_lowered(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmdet.cuda.nvcc._PLACES", ())
    which = shutil.which
    monkeypatch.setattr(
        "shutil.which",
        lambda name, **given: None if name == "nvcc" else which(name, **given),
    )
    said: list[str] = []
    with pytest.raises(TargetError, match="install the CUDA toolkit"):
        compiler_compile(model, target="sm_90", output=tmp_path / "x.tvmdet", progress=said.append)
    assert said == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flop", "compiler", "why"),
    [
        (10**13, "g++", r"10000\.0 GFLOP are too many to emulate"),
        (1, None, r"g\+\+ is not installed"),
    ],
)
def test_what_cannot_be_emulated_is_recorded_as_never_checked(
    monkeypatch: pytest.MonkeyPatch, flop: int, compiler: str | None, why: str
) -> None:
    monkeypatch.setattr("tvmdet.compiler.check_on_cuda_emulator.find_compiler", lambda: compiler)
    built: Any = SimpleNamespace(
        kernels=SimpleNamespace(flop=lambda: {1: flop}), target=SimpleNamespace(name="sm_90")
    )
    nothing: Any = None
    found = check_on_cuda_emulator(nothing, [1], built, [], 1, nothing, print)
    assert re.match(f"never run on a GPU and never checked: {why}", found["skipped"])


@needs_nvcc
def test_a_generation_that_nvcc_does_not_know_is_refused() -> None:
    with pytest.raises(TargetError, match=r"does not know sm_20; it knows .*sm_90"):
        compile_with_nvcc("", "sm_20")


def _generations() -> list[Any]:
    """Those that have tensor cores for each precision; of all but one the test is slow."""
    return [
        pytest.param(name, precision, marks=() if name == "sm_90" else pytest.mark.slow)
        for name in SMS
        for precision in ("fp16", "tf32")
        if precision in get_target(name).precisions
    ]


@needs_nvcc
@pytest.mark.parametrize(("name", "precision"), _generations())
def test_tensor_cores_are_used_on_every_generation(
    scheduled_at: Callable[[str], tvm.IRModule], name: str, precision: str
) -> None:
    target = get_target(name)
    kernels = tvm.IRModule(
        {
            var: func
            for var, func in scheduled_at(precision).functions_items()
            if f"{precision}_conv2d" in var.name_hint
        }
    )
    code = device_code(kernels, tvm_target(target))
    ptx = compile_to_ptx(code.source, str(target.tvm["arch"]))
    shape = "m16n8k8" if name == "sm_75" or precision == "tf32" else "m16n8k16"
    factors = {"fp16": "f16.f16", "tf32": "tf32.tf32"}[precision]
    entries = ptx.split(".entry")[1:]
    assert len(entries) == sum(map(len, code.launches.values())) > 0
    for entry in entries:
        assert f"mma.sync.aligned.{shape}.row.col.f32.{factors}.f32" in entry
        if precision == "fp16":
            assert len(re.findall(r"ldmatrix\.sync\.aligned\.m8n8\.x4", entry)) >= 2
        else:  # ldmatrix moves halves: floats are loaded one by one, and rounded to nearest
            assert "cvt.rna.tf32.f32" in entry
    compiled = compile_with_nvcc(code.source, str(target.tvm["arch"]))
    assert compiled.kernels.keys() == {one.kernel for f in code.launches.values() for one in f}
    for use in compiled.kernels.values():
        assert 0 < use.registers <= 255
        assert use.spilled_bytes == 0
        assert use.stack_bytes == 0, "fragments are in registers"


@needs_nvcc
@pytest.mark.slow
def test_a_file_for_a_gpu_and_a_cpu_is_checked_and_says_what_was_never_run(
    model: Any, tmp_path: Path
) -> None:
    report = compiler_compile(
        model,
        target=["sm_90", "x86-64-v3"],
        output=tmp_path / "both.tvmdet",
        logs=tmp_path / "logs",
    )
    certificate, missing = report.parity["sm_90"], get_target("sm_90").missing_features()
    emulator = "an emulator on the CPU, never run on a GPU"
    assert certificate.get("emulated") == (emulator if missing else None)
    assert certificate["boxes"] > 0
    artifact = Artifact.open(report.output)
    entry = next(one for one in artifact.targets if one.name == "sm_90")
    assert entry.gpu is not None
    assert entry.gpu["sm"] == "sm_90"
    assert entry.gpu["never_run"] == bool(missing)
    lacks = find_gpus().lacks(GpuNeeds(**entry.gpu))
    if missing:
        with tvmdet.load(report.output) as detector:
            assert detector.target == "x86-64-v3"
            assert f"sm_90 (rank 90): {lacks}" in detector.explain()
        with pytest.raises(TargetError, match=re.escape(f"sm_90: {lacks}")):
            tvmdet.load(report.output, target="sm_90")
