"""Which interpreter has a rival, and what is said when none has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tvmdet.errors import InputError
from tvmdet.report.environments import environment_variables, find_python, install, rivals_folder
from tvmdet.report.rivals import RIVALS, Rival, find_rivals

ABSENT = Rival(name="absent", group="absent", module="not_a_module_at_all", requirements=())
PRESENT = Rival(name="numpy", group="numpy", module="numpy", requirements=("numpy",))


def make_environment(folder: Path, module: str) -> Path:
    python = folder / "bin" / "python"
    (folder / "lib" / "python3.11" / "site-packages" / module).mkdir(parents=True)
    python.parent.mkdir()
    python.touch()
    return python


def test_a_missing_rival_is_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tvmdet bench --install absent"):
        find_python(ABSENT, tmp_path)


def test_a_rival_beside_tvmdet_is_used(tmp_path: Path) -> None:
    assert find_python(PRESENT, tmp_path) == Path(sys.executable)


def test_an_environment_of_its_own_comes_first(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "numpy", "numpy")
    assert find_python(PRESENT, tmp_path) == python


def test_an_environment_without_the_rival_does_not_count(tmp_path: Path) -> None:
    make_environment(tmp_path / "absent", "something_else")
    with pytest.raises(InputError, match="is not installed"):
        find_python(ABSENT, tmp_path)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TVMDET_RIVALS": "/r", "XDG_CACHE_HOME": "/c"}, "/r"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/tvmdet/rivals"),
        ({"HOME": "/h"}, "/h/.cache/tvmdet/rivals"),
    ],
)
def test_folder(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("TVMDET_RIVALS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rivals_folder() == Path(folder)


def test_other_interpreters_do_not_get_our_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    assert environment_variables(Path(sys.executable))["PYTHONPATH"] == "/ours"
    assert "PYTHONPATH" not in environment_variables(Path("/else/bin/python"))


def test_an_install_that_fails_says_why(tmp_path: Path) -> None:
    bad = Rival(name="bad", group="bad", module="bad", requirements=("-not-an-option",))
    python = tmp_path / "bad" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    with pytest.raises(InputError, match=r"bad cannot be installed: .*the command was"):
        install([bad], tmp_path)


def test_names_of_rivals() -> None:
    assert find_rivals([]) == ()
    assert [r.name for r in find_rivals(["torch", "mnn"])] == [
        "torch-eager",
        "torch-compile",
        "mnn",
    ]
    assert [r.name for r in find_rivals(["torch-eager", "torch-eager"])] == ["torch-eager"]
    with pytest.raises(InputError, match="no rival is called 'tensorrt'; there are: onnxruntime"):
        find_rivals(["tensorrt"])


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_every_rival_has_a_file_that_loads_it(rival: Rival) -> None:
    text = rival.file.read_text()
    for function in ("def load(", "def version(", "def settings("):
        assert function in text
    # It must run where tvmdet is not installed.
    assert "tvmdet" not in [line.split()[1] for line in text.splitlines() if "import " in line]
