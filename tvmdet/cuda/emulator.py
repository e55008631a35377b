"""CUDA kernels run on a CPU, to check their numbers where there is no GPU.

The CUDA C++ that nvcc would compile is compiled by g++ instead, with a header that makes coroutines
of a block's threads (``emulator/cuda.h``). Index arithmetic, barriers, shared memory, shuffles and
the fragments of tensor-core operations are those of the GPU's program; speed, caches and races
between warps are not. A kernel that agrees here can still fail on a GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import tvm
from tvm import tirx

from tvmdet.cuda.device_code import DeviceCode, Launch, Scratch, with_helpers
from tvmdet.errors import ModelError

__all__ = [
    "compile_emulated",
    "emulated_source",
    "entry_name",
    "find_compiler",
    "host_functions",
]

_HEADERS = Path(__file__).with_name("emulator")
_FLAGS = ("-O2", "-std=gnu++17", "-fPIC", "-march=native", "-fno-strict-aliasing", "-w")
_SHARED_BYTES = 232448  # no block of any GPU has more
_WAITS = re.compile(r"__sync(threads|warp)|__shfl|tvmdet_\w+_in_step|TVMDET_WAITS")


def entry_name(function: str) -> str:
    """Returns the C symbol that runs a function's kernels, given pointers to its parameters."""
    return f"emulated_{function}"


def emulated_source(code: DeviceCode) -> str:
    """Returns C++ with one entry for each function; see :func:`entry_name`."""
    # The generator's own preamble includes <cuda.h> first of all: that is where ours comes in.
    helped = "#include <cuda.h>\n" + with_helpers(code.source)
    helped = re.sub(
        r"extern __shared__ __align__\((\d+)\) (\w+ \w+)\[\]",
        rf"alignas(\1) static \2[{_SHARED_BYTES}]",
        helped,
    )
    # An alignment may not stand behind `static`, which our header makes of __shared__.
    helped = re.sub(r"__shared__ (alignas\(\d+\))", r"\1 __shared__", helped)
    waiting = _waiting_kernels(helped)
    entries = [_entry(name, launches, waiting) for name, launches in code.launches.items()]
    return "\n".join([helped, *entries])


def _waiting_kernels(source: str) -> set[str]:
    """Returns the kernels whose threads wait for one another."""
    pieces = re.split(r'(?=^extern "C" __global__ )', source, flags=re.MULTILINE)
    helpers = pieces[0]
    found = set()
    for piece in pieces[1:]:
        name = re.search(r"(\w+)\(", piece.split("__launch_bounds__", 1)[-1].split(")", 1)[-1])
        assert name is not None, "a kernel has a name"
        called = re.findall(r"\btvmdet_\w+", piece)
        if _WAITS.search(piece) or (called and _WAITS.search(helpers)):
            found.add(name.group(1))
    return found


def _entry(function: str, launches: tuple[Launch, ...], waiting: set[str]) -> str:
    parameters = max(
        (at for one in launches for at in one.arguments if isinstance(at, int)), default=-1
    )
    lines = []
    scratch: dict[str, Scratch] = {}
    for one in launches:
        scratch |= {at.name: at for at in one.arguments if isinstance(at, Scratch)}
    for place in scratch.values():
        lines.append(f"  std::vector<char> {place.name}_room({place.nbytes + 64}, char(0x7f));")
        lines.append(
            f"  void* {place.name} = reinterpret_cast<void*>("
            f"(reinterpret_cast<uintptr_t>({place.name}_room.data()) + 63) & ~uintptr_t(63));"
        )
    for one in launches:
        given = [f"p{at}" if isinstance(at, int) else at.name for at in one.arguments]
        waits = str(one.kernel in waiting).lower()
        grid, block = (", ".join(map(str, sides)) for sides in (one.grid, one.block))
        lines.append(
            f"  emulated::Launch({{{grid}}}, {{{block}}}, {waits}, [&] {{ "
            f"emulated::Call({one.kernel}, {{{', '.join(given)}}}); }});"
        )
    body = "\n".join(lines)
    taken = ", ".join(f"void* p{at}" for at in range(parameters + 1))
    return f'extern "C" int32_t {entry_name(function)}({taken}) {{\n{body}\n  return 0;\n}}\n'


def find_compiler() -> str | None:
    """Returns g++; None where it is not installed."""
    return shutil.which("g++")


def compile_emulated(code: DeviceCode, output: Path, *, shared: bool = True) -> None:
    """Compiles the emulation of a module's kernels with g++.

    Args:
        code: From :func:`~tvmdet.cuda.device_code.device_code`.
        output: A shared library or, if not ``shared``, an object file.
        shared: Which of the two.

    Raises:
        ModelError: There is no g++, or it refuses the source.
    """
    compiler = find_compiler()
    if compiler is None:
        raise ModelError("CUDA kernels are checked on the CPU with g++, which is not installed")
    source = output.with_suffix(".cc")
    source.write_text(emulated_source(code), encoding="utf-8")
    kind = ["-shared"] if shared else ["-c"]
    command = [compiler, *_FLAGS, *kind, f"-I{_HEADERS}", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise ModelError(f"g++ refuses emulated CUDA kernels: {(lines or [done.stderr])[0]}")


def host_functions(functions: tvm.IRModule) -> tvm.IRModule:
    """Returns functions of the same parameters that call the emulated kernels."""
    made = tvm.IRModule({})
    for var, func in functions.functions.items():
        if isinstance(func, tirx.PrimFunc):
            made[var] = _calling(func, entry_name(var.name_hint))
    return made


def _calling(func: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    call = tirx.call_extern("int32", symbol, *[param.data for param in func.params])
    return tirx.PrimFunc(func.params, tirx.Evaluate(call), func.ret_type, func.attrs)
