from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UNWANTED = [
    "cuda",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "torch",
    "tvm",
    "tvmdet.compiler",
    "tvmdet.frontend",
    "tvmdet.heads",
    "tvmdet.passes",
    "tvmdet.schedules",
    "tvmdet.tuning",
    "xgboost",
]

RUN = f"""
import sys
import numpy as np
import tvmdet.runtime

with tvmdet.runtime.load(sys.argv[1]) as detector:
    found = detector.detect([np.full((64, 64, 3), 200, np.uint8)])
    assert len(found[0]) == 3
    print(found[0].to_dict() and "ran", [m for m in {UNWANTED!r} if m in sys.modules])
"""

RUN_RAW = """
import sys
import numpy as np
import tvmdet.runtime

with tvmdet.runtime.load(sys.argv[1]) as network:
    network.run({name: np.ones((1, 3, 5), np.float32) for name in ("left", "right")})
    print("cv2" in sys.modules)
"""

# A package of that name that tells when it is imported, by whomever.
TATTLER = "raise SystemExit(f'{__name__} was imported')\n"


@pytest.mark.parametrize("installed", [False, True])
def test_running_loads_the_runtime_alone(toy_path: Path, tmp_path: Path, installed: bool) -> None:
    if installed:
        for name in ("torch", "cuda", "torch_c_dlpack_ext"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(TATTLER)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(toy_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.stdout.strip(), done.stderr) == ("ran []", "")


def test_arrays_need_no_opencv(raw_path: Path) -> None:
    """It takes more memory than all else that is imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_RAW, str(raw_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_other_threads_import_what_is_hidden_from_tvm_ffi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from tvmdet.runtime.native import _hiding_unwanted

    (tmp_path / "torch_c_dlpack_ext.py").write_text("value = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[object] = []

    def elsewhere() -> None:
        import torch_c_dlpack_ext

        seen.append(torch_c_dlpack_ext.value)

    try:
        with _hiding_unwanted():
            with pytest.raises(ModuleNotFoundError, match="hidden from tvm_ffi"):
                import torch_c_dlpack_ext  # noqa: F401
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        import torch_c_dlpack_ext as found

        assert (seen, found.value) == ([5], 5)
    finally:
        sys.modules.pop("torch_c_dlpack_ext", None)
