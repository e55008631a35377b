"""Between the image's upload and the boxes' download nothing runs on the host."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx

from tvmdet.errors import UnsupportedOperatorError

__all__ = ["check_on_device"]

# What the virtual machine's functions may do beside launching kernels: memory, views, tuples.
_MEMORY = ("relax.memory.", "relax.vm.", "relax.builtin.", "relax.reshape")


def check_on_device(module: tvm.IRModule) -> None:
    """Checks a module whose kernels are scheduled.

    Raises:
        UnsupportedOperatorError: A kernel would run on the host, or something is called there, or
            tensors are copied between devices.
    """
    off = [
        f"kernel {var.name_hint} is not bound to threads"
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc) and not _has_threads(func)
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


def _has_threads(func: tirx.PrimFunc) -> bool:
    # Loops bound to threads are written so in the function's text, wherever they are in it.
    text = func.script()
    return "T.thread_binding(" in text or "T.launch_thread(" in text
