"""What the CPU of this machine has."""

from __future__ import annotations

import ctypes
import functools
import platform

from tvmdet.cpus import cpuinfo

__all__ = ["host_features"]

# Linux, arch/arm64/include/uapi/asm/hwcap.h: bit n of AT_HWCAP and of AT_HWCAP2.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_ARM_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti"
)

# Linux, arch/x86/include/uapi/asm/prctl.h and the system call on x86-64; the state's number is that
# of Intel's manual, volume 1, section 13.1.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18
_TILE_FLAGS = frozenset({"amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "amx_complex"})


@functools.cache
def host_features() -> frozenset[str]:
    """Returns the CPU flags of this machine that a process may use, as the kernel names them."""
    if platform.machine() == "aarch64":
        # What the process may use, also where /proc/cpuinfo is another machine's: under emulation.
        return _arm_features()
    for key, value in cpuinfo():
        if key in ("flags", "Features"):
            flags = frozenset(value.split())
            if not flags & _TILE_FLAGS:
                return flags
            return flags if _may_use_tiles() else flags - _TILE_FLAGS
    return frozenset()


def _may_use_tiles() -> bool:
    """Asks for the registers of Intel AMX; returns whether this process may use them.

    The CPU's flags do not say: Linux before 5.16, some sandboxes, and a process with a small stack
    for signals do not get them.
    """
    return not ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA)


def _arm_features() -> frozenset[str]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    found: list[str] = []
    for kind, names in ((_AT_HWCAP, _ARM_HWCAP), (_AT_HWCAP2, _ARM_HWCAP2)):
        bits = getauxval(kind)
        found += [name for bit, name in enumerate(names.split()) if bits >> bit & 1]
    return frozenset(found)
