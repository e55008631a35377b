"""The zoo's own Python environment, with torch in it, and the exports that it makes.

tvmdet needs no torch, and its tests must not import it. Exports run in a subprocess, in an
environment that is made when a test first asks for one: ``.zoo`` in the checkout, or the
interpreter that ``TVMDET_ZOO_PYTHON`` names. Exports are kept in ``.zoo/exports`` (or in the folder
that ``TVMDET_ZOO_EXPORTS`` names), by the digest of the scripts and the versions of the packages,
so that a second run exports nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cases import Case

__all__ = ["FOLDER", "RESULTS", "ZooError", "committed", "export_all", "exported"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".zoo"
RESULTS = Path(os.environ.get("TVMDET_ZOO_RESULTS", FOLDER / "results"))

# Where pip offers both, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu brings torch
# without CUDA: 200 MB instead of 3 GB. torchvision comes without what it depends on, which would
# bring another torch.
TORCH = ["torch==2.13.0"]
PLAIN = ["torchvision==0.29.1"]
PINNED = [
    "transformers==5.24.0",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "onnxruntime==1.32.0",
    "pillow==13.0.0",
    "scipy",
]
MINUTES = 60


class ZooError(RuntimeError):
    """The environment cannot be made, or its interpreter cannot be used."""


def export_all(cases: Sequence[Case]) -> None:
    """Exports those of ``cases`` that are not in the cache, in one subprocess a builder.

    Raises:
        ZooError: The environment cannot be made, or a builder died.
    """
    missing = [case for case in cases if not _is_done(case)]
    for builder in sorted({case.builder for case in missing}):
        wanted = [case for case in missing if case.builder == builder]
        for case in wanted:
            exported(case).parent.mkdir(parents=True, exist_ok=True)
        requests = [
            {
                "builder": case.builder,
                "network": case.network,
                "exporter": case.exporter,
                "opset": case.opset,
                "path": str(exported(case)),
            }
            for case in sorted(wanted, key=lambda case: case.network)
        ]
        done = subprocess.run(
            [str(_python()), str(HERE / "export.py")],
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
            check=False,
        )
        left = [case.name for case in wanted if not _is_done(case)]
        if done.returncode or left:
            raise ZooError(
                f"export.py of {builder} ended with {done.returncode} without "
                f"{', '.join(left) or 'an answer'}:\n{done.stderr[-3000:]}"
            )


def exported(case: Case) -> Path:
    """Returns where a case's ONNX file is, or will be; its candidates lie beside it."""
    folder = Path(os.environ.get("TVMDET_ZOO_EXPORTS", FOLDER / "exports"))
    return folder / _digest(case.builder) / f"{case.name}.onnx"


def committed(case: Case) -> Path:
    """Returns where the ONNX file of a case of the default run lies."""
    return HERE / "exports" / f"{case.name}.onnx"


def _is_done(case: Case) -> bool:
    path = exported(case)
    return path.is_file() or path.with_suffix(".error").is_file()


@cache
def _digest(builder: str) -> str:
    """Digest of what an export depends on: the scripts that make it, and the pinned packages."""
    shared = ("built", "drawn", "seeded", "blocks", "export", "torchvision_beside_torch")
    digest = hashlib.sha256(" ".join([*TORCH, *PLAIN, *PINNED]).encode())
    for name in (*shared, builder):
        digest.update((HERE / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


@cache
def _python() -> Path:
    """Returns the interpreter with torch; makes its environment where there is none."""
    given = os.environ.get("TVMDET_ZOO_PYTHON")
    if given:
        if not Path(given).is_file():
            raise ZooError(f"TVMDET_ZOO_PYTHON is {given!r}, which is no file: name a Python")
        return Path(given)
    python = FOLDER / "env" / "bin" / "python"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        # Tests run in several processes; one makes the environment.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_made():
            _make(python)
    return python


def _is_made() -> bool:
    stamp = FOLDER / "env" / "zoo.stamp"
    return stamp.is_file() and stamp.read_text() == " ".join([*TORCH, *PLAIN, *PINNED])


def _make(python: Path) -> None:
    print(f"making the environment of the zoo, {FOLDER / 'env'} (minutes)", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(FOLDER / "env")])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    # torch first, so that nothing else asks for another one.
    _run([*pip, *TORCH])
    _run([*pip, "--no-deps", *PLAIN])
    _run([*pip, *PINNED])
    (FOLDER / "env" / "zoo.stamp").write_text(" ".join([*TORCH, *PLAIN, *PINNED]))


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60 * MINUTES, check=False
    )
    if done.returncode:
        raise ZooError(
            f"the environment of the zoo cannot be made: {' '.join(command)} ended with "
            f"{done.returncode}: {done.stderr.strip()[-800:]}\nMake one where there is a network, "
            "or set TVMDET_ZOO_PYTHON to a Python that has "
            f"{', '.join([TORCH[-1], *PLAIN, *PINNED])}"
        )
