"""The wheel: it holds what it must, installs, and works outside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def call(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git would commit."""
    folder = tmp_path_factory.mktemp("wheel")
    names = call("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps")
    call(*pip, "--wheel-dir", folder, folder / "source", cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """An environment with the wheel in it, which borrows this one's other packages."""
    place = wheel.parent / "venv"
    call(sys.executable, "-m", "venv", place, cwd=wheel.parent)
    python = place / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps")
    call(*pip, wheel, cwd=wheel.parent)
    # Named in a .pth file, that folder is searched last, and its own .pth files do not run:
    # tvmdet's editable install, one of them, stays out.
    shared = sysconfig.get_path("purelib")
    installed = Path(call(python, "-c", "import tvmdet; print(tvmdet.__file__)", cwd=place).strip())
    (installed.parent.parent / "borrowed.pth").write_text(f"{shared}\n")
    return python


def test_wheel_holds_code_data_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "tvmdet/py.typed",
        "tvmdet/report/pages/page.css",
        "tvmdet/report/pages/page.html.jinja",
        "tvmdet/report/pages/page.js",
        "tvmdet/targets/x86-64-v3.toml",
        "tvmdet/schedules/x86/templates.py",
        "tvmdet/schedules/arm/templates.py",
        "tvmdet/board/rpc_server.c",
        "tvmdet/tuning_logs/__init__.py",
        "tvmdet/runtime/detector.py",
    ):
        assert name in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tvmdet"}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "tvmdet").rglob("*.py")}
    assert modules <= set(names)
    logs = {f"tvmdet/{p.relative_to(ROOT)}" for p in (ROOT / "tuning_logs").glob("*/*.jsonl")}
    assert logs <= set(names)


def test_command_works_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    found = json.loads(call(python.parent / "tvmdet", "targets", "--json", cwd=tmp_path))
    assert "x86-64-v3" in [entry["name"] for entry in found["targets"]]


def test_artifact_loads_outside_the_checkout(python: Path, toy_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy, tvmdet\n"
        "found = tvmdet.load(sys.argv[1]).detect(numpy.full((20, 30, 3), 255, numpy.uint8))\n"
        "print(tvmdet.__file__, len(found))"
    )
    where, count = call(python, "-c", code, toy_path, cwd=tmp_path).split()
    assert count == "3"
    assert ROOT not in Path(where).parents
