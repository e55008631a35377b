"""Targets as data: one TOML file per machine that tvmdet compiles for.

Code asks a :class:`Target` for a fact (vector lanes, L2 bytes, required features); no code
outside this folder and the schedule folders asks for a target's name. Beside the files of this
folder there are those of a folder of the user's own, which ``TVMDET_TARGETS`` names.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from tvmdet.targets.machine import host_features
from tvmdet.targets.read import nearest, read_target
from tvmdet.targets.target import GpuFacts, Kind, Precision, Target

from tvmdet import gpus
from tvmdet.errors import TargetError

__all__ = [
    "GpuFacts",
    "Kind",
    "Precision",
    "Target",
    "get_target",
    "host_features",
    "host_targets",
    "list_targets",
    "resolve_target",
]

_log = logging.getLogger("tvmdet.targets")
_FOLDER = Path(__file__).parent
_USERS_FOLDER = "TVMDET_TARGETS"
_ALIASES = {"host": "cpu", "cuda": "cuda"}
_ALIASES_ALSO_CALLED = {
    "host": ("this machine", ["native", "local", "localhost", "cpu"]),
    "cuda": ("this machine's GPU", ["gpu", "nvidia"]),
}


def list_targets() -> tuple[Target, ...]:
    """Returns every known target, best first.

    A file of the user's own folder that cannot be used is left out, and warned of once.

    Raises:
        TargetError: There is no such folder.
    """
    found, unusable = _read_targets(os.environ.get(_USERS_FOLDER, ""))
    for error in unusable.values():
        _warn_once(str(error))
    return found


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


@functools.cache
def _read_targets(users_folder: str) -> tuple[tuple[Target, ...], Mapping[str, TargetError]]:
    """Returns the targets, best first, and by name what is wrong with the user's other files."""
    found = {path.stem: read_target(path) for path in sorted(_FOLDER.glob("*.toml"))}
    unusable: dict[str, TargetError] = {}
    if users_folder:
        if not Path(users_folder).is_dir():
            raise TargetError(
                f"{_USERS_FOLDER} is {users_folder!r}, which is no folder; name a folder of target "
                "files, or unset it"
            )
        for path in sorted(Path(users_folder).glob("*.toml")):
            if path.stem in found or path.stem in _ALIASES:
                unusable[path.stem] = TargetError(
                    f"target file {path} bears the name of another target, {path.stem}; rename it"
                )
                continue
            try:
                found[path.stem] = read_target(path)
            except TargetError as error:
                unusable[path.stem] = error
    return tuple(sorted(found.values(), key=lambda target: -target.rank)), unusable


def get_target(name: str, precision: str = "fp32") -> Target:
    """Returns the target of that name.

    Args:
        name: A name; or ``host``, the best that this machine's CPU can run; or ``cuda``, the best
            that its GPU can; or the path of a target file, which ends in ``.toml``.
        precision: What ``host`` is to compute in: some CPUs are worth code of their own in one.

    Raises:
        TargetError: No target has that name, the file cannot be read, or this machine can run none.
    """
    if name in _ALIASES:
        return _best_here(_ALIASES[name], precision)
    if name.endswith(".toml"):
        return read_target(Path(name))
    if (unusable := _read_targets(os.environ.get(_USERS_FOLDER, ""))[1].get(name)) is not None:
        raise unusable
    for target in list_targets():
        if target.name == name:
            return target
    names = [target.name for target in list_targets()]
    raise TargetError(
        f"unknown target {name!r}; known: host, cuda, {', '.join(names)}"
        f"{_offered(name) or nearest(name, [*_ALIASES, *names])}"
    )


def _offered(word: str) -> str:
    """Returns ``; did you mean X (a machine)?`` for what people call a machine, else nothing."""
    called = [(alias, machine, words) for alias, (machine, words) in _ALIASES_ALSO_CALLED.items()]
    for target in list_targets():
        called += [(target.name, machine, words) for machine, words in target.also_called.items()]
    found = [
        f"{name} ({machine})"
        for name, machine, words in called
        if _plain(word) in map(_plain, (machine, *words))
    ]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def resolve_target(target: str | os.PathLike[str] | Target, precision: str | None = None) -> Target:
    """Returns ``target`` itself, or the target of that name, with what it may compute in.

    Args:
        target: A target, or what :func:`get_target` takes; the path of a file may be a Path.
        precision: As :meth:`Target.at_precision` takes it; None leaves it as it is.

    Raises:
        TargetError: No target has that name, or it cannot compute in that precision.
    """
    if not isinstance(target, str | os.PathLike | Target):
        raise TargetError(
            f"target is {target!r}; give the name of one (see `tvmdet targets`), the path of a "
            "target file, or a Target"
        )
    found = target
    if not isinstance(found, Target):
        found = get_target(os.fspath(found), precision or "fp32")
    return found.at_precision(precision) if precision else found


def host_targets() -> dict[str, Target]:
    """Returns what ``host`` means, in float32 and in what else it means something of its own.

    Empty on a machine that no target fits.
    """
    precisions = ["fp32", *sorted({p for target in list_targets() for p in target.host_at})]
    found = {precision: _first_here("cpu", precision) for precision in precisions}
    return {precision: target for precision, target in found.items() if target is not None}


def _fitting(kind: str) -> list[Target]:
    return [target for target in list_targets() if target.kind == kind and not target.named_only]


def _first_here(kind: str, precision: str) -> Target | None:
    for target in list_targets():
        asked = target.kind == kind and precision in target.host_at
        if asked and not target.at_precision(precision).missing_features():
            return target
    return next((target for target in _fitting(kind) if not target.missing_features()), None)


def _best_here(kind: str, precision: str) -> Target:
    if (found := _first_here(kind, precision)) is not None:
        return found
    fitting = _fitting(kind)
    if kind == "cuda":
        here = [t for t in fitting if t.arch == platform.machine()]
        lacks = [" and ".join(t.missing_features()) for t in here]
        raise TargetError(
            f"no CUDA target fits this machine ({platform.machine()}, {gpus.find_gpus()}): it "
            f"lacks {' or '.join(dict.fromkeys(lacks)) or 'an architecture of theirs'}; name a "
            f"target to compile for another machine: {', '.join(t.name for t in fitting)}"
        )
    raise TargetError(
        f"no target fits this machine ({platform.machine()}); known: "
        f"{', '.join(target.name for target in list_targets())}"
    )
