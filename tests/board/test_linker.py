"""Finding a linker, and saying what to install where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tvmdet.board import linker
from tvmdet.errors import TargetError


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets only these programs be found."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name in names else None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("aarch64-linux-gnu-ld", "aarch64-linux-gnu-gcc"), ("/usr/bin/aarch64-linux-gnu-ld",)),
        (("aarch64-linux-gnu-gcc", "ld"), ("/usr/bin/aarch64-linux-gnu-gcc", "-nostdlib")),
        (("ld.lld", "ld"), ("/usr/bin/ld.lld", "-m", "aarch64linux")),
        (("clang",), ("/usr/bin/clang", "--target=aarch64-linux-gnu", "-fuse-ld=lld", "-nostdlib")),
    ],
)
def test_any_of_them_will_do(
    found: tuple[str, ...], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, *found)
    assert linker.find_linker("aarch64") == expected


def test_this_machines_own_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "ld", "x86_64-linux-gnu-ld")
    assert linker.find_linker("x86_64") == ("/usr/bin/ld",)


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "ld", "gcc")
    with pytest.raises(TargetError, match="apt install binutils-aarch64-linux-gnu") as caught:
        linker.find_linker("aarch64")
    assert "looked for aarch64-linux-gnu-ld, aarch64-linux-gnu-gcc, ld.lld, clang" in str(
        caught.value
    )
    with pytest.raises(TargetError, match="no linker for riscv64 is installed"):
        linker.find_linker("riscv64")


def test_a_linker_that_fails_is_named(tmp_path: Path) -> None:
    objects = tmp_path / "none.o"
    objects.write_bytes(b"no object")
    with pytest.raises(TargetError, match=r"cannot link for x86_64: "):
        linker.link_shared("x86_64", [objects], tmp_path / "none.so")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_links_the_same_bytes_anywhere(tmp_path: Path) -> None:
    made = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.c").write_text("int answer(void) { return 42; }\n")
        subprocess.run(["cc", "-c", "-O1", "a.c"], cwd=folder, check=True)
        linker.link_shared("x86_64", [folder / "a.o"], folder / "a.so")
        made.append((folder / "a.so").read_bytes())
    assert made[0] == made[1]
