"""A GPU whose CUDA runtime does not work: stub libraries, and commands run beside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toy_modules

from tvmdet import cuda_runtime

DRIVER = """
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuInit(unsigned f) { return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { s[0] = 'H'; s[1] = 0; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : 0; return 0; }
"""
RUNTIME = "int cudaGetDeviceCount(int *n) {{ *n = {count}; return {status}; }}"
WORKS = RUNTIME.format(count=1, status=0)
GPU = {"sm": "sm_90", "toolkit": "13.0", "never_run": True, "kernels": {}}


def compile_stub(source: str, path: Path) -> None:
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("gcc is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)


@pytest.fixture
def both(toy_library: bytes, tmp_path: Path) -> Path:
    """A file with code for a GPU and for this machine's CPU, beside a driver with an sm_90."""
    compile_stub(DRIVER, tmp_path / "lib" / "libcuda.so.1")
    targets = [
        toy_modules.toy_target(),
        toy_modules.toy_target("sm_90", rank=90, required_features=["sm_90"], gpu=GPU),
    ]
    return toy_modules.write_toy(tmp_path / "both.tvmdet", toy_library, targets=targets)


def tvmdet(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")}
    command = [sys.executable, "-m", "tvmdet", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def verdict(folder: Path, file: Path) -> str:
    done = tvmdet(folder, "inspect", file, "--here", "--json")
    assert done.returncode == 0, done.stderr
    said: str = json.loads(done.stdout)["targets"]["sm_90"]
    return said


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("not a library", "libcudart.so.13: file too short): pip install"),
        ("int nothing;", "this machine's libcudart.so.13 is none ("),
        (RUNTIME.format(count=0, status=35), "finds no GPU (cudaGetDeviceCount: 35): update"),
    ],
    ids=["unreadable", "another library", "too new for the driver"],
)
def test_the_cpu_is_used_where_the_runtime_does_not_work(
    both: Path, tmp_path: Path, runtime: str, says: str
) -> None:
    library = tmp_path / "lib" / "libcudart.so.13"
    if "int" in runtime:
        compile_stub(runtime, library)
    else:
        library.write_text(runtime)
    said = verdict(tmp_path, both)
    assert said.startswith("needs the CUDA 13 runtime; ")
    assert says in said
    picture = tmp_path / "x.png"
    assert cv2.imwrite(str(picture), np.zeros((32, 48, 3), np.uint8))
    done = tvmdet(tmp_path, "detect", both, picture)
    assert done.returncode == 0, done.stderr


def test_a_runtime_that_works_lets_the_gpu_be_chosen(both: Path, tmp_path: Path) -> None:
    compile_stub(WORKS, tmp_path / "lib" / "libcudart.so.13")
    assert verdict(tmp_path, both) == "runs here, used; never run on a GPU when it was compiled"


def test_the_runtime_of_the_pip_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_stub(WORKS, tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13")
    monkeypatch.setattr(cuda_runtime, "_LIBRARY", "libcudart-of-nobody.so.13")
    with pytest.raises(OSError, match="libcudart-of-nobody"):
        cuda_runtime.load_cuda_runtime.__wrapped__()
    monkeypatch.syspath_prepend(tmp_path)
    assert cuda_runtime.load_cuda_runtime.__wrapped__().cudaGetDeviceCount is not None
