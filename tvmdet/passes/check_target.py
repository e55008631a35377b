"""Whether LLVM and a target file agree: what neither the file's reader nor a runtime can see.

LLVM takes a CPU or a flag that it does not know for another, and says so on the terminal at most;
and it uses what a CPU has, whether or not the file requires that of a machine.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import tvm

from tvmdet.errors import TargetError
from tvmdet.targets import Target
from tvmdet.targets.read import LLVM_ARCH, nearest

__all__ = ["check_target"]

_KERNEL_NAMES: Final[Mapping[str, str]] = {
    **{"cx16": "cx16", "sahf": "lahf_lm", "popcnt": "popcnt", "lzcnt": "abm", "movbe": "movbe"},
    **{"sse4.1": "sse4_1", "sse4.2": "sse4_2", "sse4a": "sse4a", "ssse3": "ssse3"},
    **{"avx": "avx", "avx2": "avx2", "bmi": "bmi1", "bmi2": "bmi2", "f16c": "f16c", "fma": "fma"},
    **{f"avx512{part}": f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl", "ifma", "vbmi")},
    **{f"avx512{p}": f"avx512_{p}" for p in ("vbmi2", "vnni", "bitalg", "vpopcntdq", "bf16")},
    **{"avx512fp16": "avx512_fp16", "avxvnni": "avx_vnni", "gfni": "gfni", "adx": "adx"},
    **{"amx-tile": "amx_tile", "amx-bf16": "amx_bf16", "amx-int8": "amx_int8"},
    **{"neon": "asimd", "fp-armv8": "fp", "crc": "crc32", "lse": "atomics", "lse2": "uscat"},
    **{"dotprod": "asimddp", "fullfp16": "asimdhp", "fp16fml": "asimdfhm", "rdm": "asimdrdm"},
    **{"rcpc": "lrcpc", "rcpc-immo": "ilrcpc", "complxnum": "fcma", "jsconv": "jscvt"},
    **{"i8mm": "i8mm", "bf16": "bf16", "fptoint": "frint", "flagm": "flagm", "dit": "dit"},
    **{"altnzcv": "flagm2", "sb": "sb", "bti": "bti", "pauth": "paca"},
}
"""What LLVM may make use of in any code, and how the kernel names it in /proc/cpuinfo."""

_COMPUTES: Final = re.compile(
    r"avx|sse4|fma|bmi|amx|sve|sme|neon|dotprod|i8mm|bf16|f16c|fullfp|fp16|gfni"
)
"""Names of features that a kernel would use; those of scheduling and of the system are others."""

_NO_CODE: Final = frozenset(
    {"use-fixed-over-scalable-if-equal-cost", "sve-bitperm", "no-sve-fp-ld1r"}
)
"""Without SVE itself, these say nothing."""


def check_target(target: Target) -> None:
    """Refuses a target whose code would not be what its file says.

    Args:
        target: At any precision; all that the file says is checked.

    Raises:
        TargetError: LLVM does not know the architecture, the CPU or a flag, or may use an
            instruction that ``required_features`` does not name.
    """
    table, where = target.tvm, "[tvm]"
    if target.kind == "cuda":
        table, where = target.tvm["host"], "[tvm.host]"
    _check_arch(target, table, where)
    known = [str(name) for name in _ask("target.llvm_get_cpu_archlist", table, mattr=())]
    if table["mcpu"] not in known:
        hint = nearest(table["mcpu"], known) or "; `llc -mcpu=help` lists those that it knows"
        raise _bad(target, f"LLVM does not know mcpu = {table['mcpu']!r} in {where}{hint}")
    for key, flags in _flags(target, table, where):
        for flag in flags:
            if not _is_known(table, flag):
                raise _bad(
                    target,
                    f"LLVM does not know {flag!r} of {key}; write '+' or '-' and a name that "
                    f"`llc -mattr=help` lists for mcpu = {table['mcpu']!r}",
                )
    for key, used, required in _uses(target, table):
        _check_required(target, table["mcpu"], key, used, required)


def _check_arch(target: Target, table: Mapping[str, Any], where: str) -> None:
    if "mtriple" not in table and target.arch != platform.machine():
        raise _bad(
            target,
            f"{where} lacks mtriple, and this machine is {platform.machine()}; write "
            f'mtriple = "{target.arch}-linux-gnu"',
        )
    names = {str(name) for name in tvm.get_global_func("target.llvm_get_targets")()}
    if LLVM_ARCH.get(target.arch, target.arch) not in names:
        raise _bad(
            target,
            f"LLVM makes no code for arch = {target.arch!r}{nearest(target.arch, names)}; "
            "write what `uname -m` prints on such a machine",
        )


def _flags(
    target: Target, table: Mapping[str, Any], where: str
) -> Iterator[tuple[str, Sequence[str]]]:
    plain = target.at_precision("fp32")
    own = plain.tvm if target.kind == "cpu" else table
    yield f"mattr in {where}", own.get("mattr", ())
    for ability in ("bf16", "fp16", "int8_dot"):
        yield f"mattr in [{ability}]", getattr(target, ability).get("mattr", ())


def _is_known(table: Mapping[str, Any], flag: str) -> bool:
    """LLVM drops a flag that it does not know; one that it knows is there once it is turned on."""
    if flag[0] not in "+-" or len(flag) < 2:
        return False
    return flag[1:] in _features(table, [f"+{flag[1:]}"])


def _uses(
    target: Target, table: Mapping[str, Any]
) -> Iterator[tuple[str, set[str], Sequence[str]]]:
    """Yields which key must name what LLVM may use, that, and what is named."""
    if target.arch not in ("x86_64", "aarch64"):
        return  # what the kernel calls the features of others is not known here
    plain = target.at_precision("fp32")
    flags = (plain.tvm if target.kind == "cpu" else table).get("mattr", ())
    yield "required_features in [cpu]", _features(table, flags), plain.required_features
    for ability in ("bf16", "fp16", "int8_dot"):
        if needs := getattr(target, ability):
            yield (
                f"required_features in [{ability}]",
                _features(table, [*flags, *needs["mattr"]]),
                (*plain.required_features, *needs["required_features"]),
            )


def _check_required(
    target: Target, mcpu: str, key: str, used: set[str], required: Sequence[str]
) -> None:
    if unnamed := sorted(
        feature for feature in used if feature not in _KERNEL_NAMES and _COMPUTES.match(feature)
    ):
        off = ", ".join(f'"-{feature}"' for feature in unnamed)
        raise _bad(
            target,
            f"LLVM may use {', '.join(unnamed)} under mcpu = {mcpu!r}, and tvmdet cannot tell "
            f"whether a machine has that; turn it off in mattr: {off}",
        )
    needed = {name: feature for feature, name in _KERNEL_NAMES.items() if feature in used}
    if lacking := sorted(needed.keys() - set(required)):
        off = ", ".join(f'"-{needed[name]}"' for name in lacking)
        raise _bad(
            target,
            f"{key} lacks what LLVM may use under mcpu = {mcpu!r}: add "
            f"{', '.join(map(repr, lacking))}, or turn it off in mattr: {off}",
        )


def _features(table: Mapping[str, Any], mattr: Sequence[str]) -> set[str]:
    return {
        str(feature) for feature in _ask("target.llvm_get_cpu_features", table, mattr)
    } - _NO_CODE


def _ask(function: str, table: Mapping[str, Any], mattr: Sequence[str]) -> Any:
    options = {key: value for key, value in table.items() if key != "mattr"}
    if mattr:
        options["mattr"] = list(mattr)
    return tvm.get_global_func(function)(tvm.target.Target(options))


def _bad(target: Target, why: str) -> TargetError:
    file = f"target file {target.file}" if target.file else f"target {target.name}"
    return TargetError(f"{file} cannot be compiled for: {why} (docs/adding-a-target.md)")
