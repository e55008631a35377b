"""Between the image's upload and the boxes' download nothing runs on the host.

And a GPU can launch every kernel, which is otherwise found out by a call that fails there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import tvm
from tvm import relax, tirx

from tvmdet.errors import ShapeError, UnsupportedOperatorError

__all__ = ["check_on_device"]

# What the virtual machine's functions may do beside launching kernels: memory, views, tuples.
_MEMORY = ("relax.memory.", "relax.vm.", "relax.builtin.", "relax.reshape")

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": the same for all.
_MOST_BLOCKS: Final[Mapping[str, int]] = {
    "blockIdx.x": (1 << 31) - 1,
    "blockIdx.y": (1 << 16) - 1,
    "blockIdx.z": (1 << 16) - 1,
}
_BLOCKS: Final = re.compile(
    r'T\.thread_binding\((?:T\.int64\()?(?P<blocks>\d+)\)?, thread="(?P<axis>blockIdx\.[xyz])"'
)


def check_on_device(module: tvm.IRModule) -> None:
    """Checks a module whose kernels are scheduled.

    Raises:
        UnsupportedOperatorError: A kernel would run on the host, or something is called there, or
            tensors are copied between devices.
        ShapeError: A kernel has more blocks along an axis than a GPU can launch.
    """
    # Loops bound to threads are written so in a function's text, wherever they are in it.
    kernels = {
        str(var.name_hint): func.script()
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }
    off = [
        f"kernel {name} is not bound to threads"
        for name, text in kernels.items()
        if not _has_threads(text)
    ]

    def visit(expr: Any) -> None:
        if not isinstance(expr, relax.Call) or not isinstance(expr.op, tvm.ir.Op):
            return
        name = str(expr.op.name)
        if name != "relax.call_tir" and not name.startswith(_MEMORY):
            off.append(f"{name} is called on the host")

    for func in module.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    if off:
        raise UnsupportedOperatorError(
            f"not everything of the network can run on a GPU: {'; '.join(sorted(set(off)))}. "
            "Replace these operators in the model, or compile it for a CPU"
        )

    for var, text in kernels.items():
        _check_grid(var, text)


def _check_grid(name: str, text: str) -> None:
    for found in _BLOCKS.finditer(text):
        axis, blocks = found["axis"], int(found["blocks"])
        if blocks > _MOST_BLOCKS[axis]:
            raise ShapeError(
                f"kernel {name} takes {blocks} blocks along {axis}, and a GPU launches at most "
                f"{_MOST_BLOCKS[axis]}: compile with a smaller --batch or --size, or for a CPU"
            )


def _has_threads(text: str) -> bool:
    return "T.thread_binding(" in text or "T.launch_thread(" in text
