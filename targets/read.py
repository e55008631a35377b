"""A target file in TOML becomes a :class:`Target`, or an error that says which key is wrong."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from tvmdet.targets.target import GpuFacts, Target

from tvmdet.errors import TargetError

__all__ = ["LLVM_ARCH", "nearest", "read_target"]

_TOP: Final = {"description": str, "kind": str, "arch": str, "rank": int, "tvm": dict, "cpu": dict}
_TOP_OPTIONAL: Final = {"records": str, "named_only": bool, "host_at": list, "also_called": dict}
_CPU: Final = {
    "required_features": list,
    "vector_lanes_f32": int,
    "vector_registers": int,
    "flop_per_cycle_f32": int,
    "l1d_bytes": int,
    "l2_bytes": int,
}
_HOST: Final = {"required_features": list}
_ABILITY: Final = {"required_features": list, "mattr": list}
_GPU: Final = {
    **dict.fromkeys(GpuFacts.__dataclass_fields__, int),
    **dict.fromkeys(("flop_per_cycle_f32", "l1d_bytes", "l2_bytes"), int),
}
_TVM: Final[Mapping[str, tuple[dict[str, type], dict[str, type]]]] = {
    "cpu": ({"kind": str, "mcpu": str}, {"mtriple": str, "mattr": list}),
    "cuda": (
        {"kind": str, "arch": str, "host": dict},
        {
            "max_num_threads": int,
            "max_threads_per_block": int,
            "max_shared_memory_per_block": int,
            "thread_warp_size": int,
            "registers_per_block": int,
            "libs": list,
        },
    ),
}
_TVM_KIND: Final = {"cpu": "llvm", "cuda": "cuda"}
_ZERO_ALLOWED: Final = ("flop_per_cycle_f16", "flop_per_cycle_bf16", "flop_per_cycle_tf32")
LLVM_ARCH: Final[Mapping[str, str]] = {"ppc64le": "powerpc64le", "armv7l": "arm", "i686": "i386"}
"""What LLVM calls an architecture, where that is not as `uname -m` names it."""
_FOLDER: Final = Path(__file__).parent
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_GPU_ACCESS_LANES: Final = 4  # a thread reads at most 128 bits at once
_GPU_THREAD_REGISTERS: Final = 255


def read_target(path: Path) -> Target:
    """Reads a target file; the target's name is the file's.

    Raises:
        TargetError: It cannot be read, or a key is unknown, missing or of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(path, str(error)) from error
    if not _NAME.fullmatch(path.stem):
        raise _bad(path, "a target is called as its file; use lower-case letters, digits, - and _")
    kind = data.get("kind", "cpu")
    if isinstance(kind, str) and kind not in _TVM:
        raise _bad(path, f"kind is {kind!r}; allowed: {', '.join(_TVM)}")
    if kind == "cuda":
        _check(path, "the file", data, {**_TOP, "gpu": dict}, _TOP_OPTIONAL)
        _check(path, "[cpu]", data["cpu"], _HOST)
        _check(path, "[gpu]", data["gpu"], _GPU)
    else:
        abilities = dict.fromkeys(("bf16", "fp16", "int8_dot"), dict)
        _check(path, "the file", data, _TOP, {**_TOP_OPTIONAL, **abilities})
        _check(path, "[cpu]", data["cpu"], _CPU, {"clock_hz": int})
        for name in abilities:
            if name in data:
                _check(path, f"[{name}]", data[name], _ABILITY)
    _check_tvm(path, kind, data["tvm"])
    _check_arch(path, kind, data)
    for machine, words in data.get("also_called", {}).items():
        _check_value(path, f"{machine} in [also_called]", machine, words, list)
    target = _gpu_target(path, data) if kind == "cuda" else _cpu_target(path, data)
    if unknown := [precision for precision in target.host_at if precision not in target.precisions]:
        raise _bad(
            path,
            f"host_at names {unknown[0]!r}; the target computes in {', '.join(target.precisions)}",
        )
    return target


def nearest(word: str, known: Collection[str]) -> str:
    """Returns ``; did you mean X?`` for words that are spelt like ``word``, else nothing."""
    found = difflib.get_close_matches(word.lower(), sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _cpu_target(path: Path, data: Mapping[str, Any]) -> Target:
    cpu = {**data["cpu"], "required_features": tuple(data["cpu"]["required_features"])}
    abilities = {name: data.get(name, {}) for name in ("bf16", "fp16", "int8_dot")}
    return Target(**_common(path, data), **cpu, **abilities)


def _gpu_target(path: Path, data: Mapping[str, Any]) -> Target:
    gpu = GpuFacts(**{name: data["gpu"][name] for name in GpuFacts.__dataclass_fields__})
    flags = (*data["cpu"]["required_features"], f"sm_{gpu.compute_capability}")
    abilities: dict[str, Any] = {
        name: {"required_features": [], "mattr": []} if rate else {}
        for name, rate in (("fp16", gpu.flop_per_cycle_f16), ("tf32", gpu.flop_per_cycle_tf32))
    }
    return Target(
        **_common(path, data),
        **abilities,
        required_features=flags,
        vector_lanes_f32=_GPU_ACCESS_LANES,
        vector_registers=_GPU_THREAD_REGISTERS,
        flop_per_cycle_f32=data["gpu"]["flop_per_cycle_f32"],
        l1d_bytes=data["gpu"]["l1d_bytes"],
        l2_bytes=data["gpu"]["l2_bytes"],
        clock_hz=gpu.clock_hz,
        gpu=gpu,
    )


def _common(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("description", "kind", "arch", "rank", "tvm", "records", "named_only", "also_called")
    found = {"name": path.stem, **{key: data[key] for key in keys if key in data}}
    file = "" if path.parent == _FOLDER else str(path)
    return {**found, "file": file, "host_at": tuple(data.get("host_at", ()))}


def _check_tvm(path: Path, kind: str, table: Mapping[str, Any]) -> None:
    _check(path, "[tvm]", table, *_TVM[kind])
    if table["kind"] != _TVM_KIND[kind]:
        raise _bad(path, f"kind in [tvm] is {table['kind']!r}; it must be {_TVM_KIND[kind]!r}")
    if kind == "cuda":
        _check(path, "[tvm.host]", table["host"], *_TVM["cpu"])


def _check_arch(path: Path, kind: str, data: Mapping[str, Any]) -> None:
    """Compares what a file says twice: of which architecture and of which GPU it is."""
    arch, tvm, where = data["arch"], data["tvm"], "[tvm]"
    if kind == "cuda":
        sm, capability = tvm["arch"], data["gpu"]["compute_capability"]
        if sm != f"sm_{capability}":
            raise _bad(
                path,
                f"arch in [tvm] is {sm!r}, and compute_capability in [gpu] is {capability}; write "
                f'arch = "sm_{capability}", or the compute_capability of {sm}',
            )
        tvm, where = tvm["host"], "[tvm.host]"
    triple = tvm.get("mtriple")
    if triple is not None and triple.partition("-")[0] not in (arch, LLVM_ARCH.get(arch)):
        raise _bad(
            path,
            f"mtriple in {where} is {triple!r}, and arch is {arch!r}; write mtriple = "
            f'"{arch}-linux-gnu", or the arch that `uname -m` prints on such a machine',
        )


def _check(
    path: Path,
    where: str,
    table: Mapping[str, Any],
    needed: Mapping[str, type],
    optional: Mapping[str, type] | None = None,
) -> None:
    allowed = {**needed, **(optional or {})}
    for key in table:
        if key not in allowed:
            hint = nearest(key, allowed) or f"; allowed: {', '.join(allowed)}"
            raise _bad(path, f"unknown key {key!r} in {where}{hint}")
    if missing := [key for key in needed if key not in table]:
        raise _bad(path, f"{where} lacks {', '.join(missing)}")
    for key, value in table.items():
        _check_value(path, f"{key} in {where}", key, value, allowed[key])


def _check_value(path: Path, where: str, key: str, value: object, kind: type) -> None:
    if type(value) is not kind:
        raise _bad(path, f"{where} is {value!r}; it must be {_IN_WORDS[kind]}")
    if isinstance(value, list) and not all(isinstance(item, str) and item for item in value):
        raise _bad(path, f"{where} is {value!r}; it must be {_IN_WORDS[list]}")
    least = 0 if key in _ZERO_ALLOWED else 1
    if kind is int and isinstance(value, int) and value < least:
        raise _bad(path, f"{where} is {value}; it must be at least {least}")
    if kind is str and (not value or "\n" in str(value)):
        raise _bad(path, f"{where} is {value!r}; it must be one line of text")
    if key == "vector_lanes_f32" and value not in (1, 2, 4, 8, 16, 32):
        raise _bad(path, f"{where} is {value}; it must be a power of two up to 32")


_IN_WORDS: Final[Mapping[type, str]] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list of texts",
    dict: "a table",
}


def _bad(path: Path, why: str) -> TargetError:
    return TargetError(
        f"target file {path.name} cannot be read: {why} ({path}; docs/adding-a-target.md has a "
        "whole file)"
    )
