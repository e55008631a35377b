"""PyTorch: the ONNX file turned back into a module by onnx2torch; eager or compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx2torch
import torch

__all__ = ["load", "settings", "version"]


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Converts the network; ``mode`` is ``eager`` or ``compile``."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    network = onnx2torch.convert(onnx.load(model)).eval()
    with contextlib.suppress(RuntimeError):
        # Pictures in NHWC, which oneDNN prefers; a module with 5-d weights stays as it is.
        network = network.to(memory_format=torch.channels_last)
    if mode == "compile":
        import torch._inductor.config as inductor

        # Weights are folded and packed in advance; without it convolutions are slow.
        inductor.freezing = True
        network = torch.compile(_with_fixed_shapes(network, signature), dynamic=False)
    inputs = [entry["name"] for entry in signature["inputs"]]
    outputs = [entry["name"] for entry in signature["outputs"]]
    lower = precision == "bf16"

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        tensors = [_tensor(arrays[name]) for name in inputs]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
            found = network(*tensors)
        found = [found] if isinstance(found, torch.Tensor) else list(found)
        return {
            name: np.asarray((value.float() if lower else value).numpy())
            for name, value in zip(outputs, found, strict=True)
        }

    return run


def _with_fixed_shapes(network: Any, signature: Mapping[str, Any]) -> Any:
    """Returns the network with every reshape to a constant.

    What onnx2torch makes reads the new shape from a tensor as it runs, which the compiler cannot
    follow.
    """
    from torch.fx.passes.shape_prop import ShapeProp

    samples = [_tensor(np.zeros(entry["shape"], entry["dtype"])) for entry in signature["inputs"]]
    with torch.no_grad():
        ShapeProp(network).propagate(*samples)
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        if node.op == "call_module" and type(modules[node.target]).__name__ == "OnnxReshape":
            node.op, node.target = "call_function", torch.reshape
            node.args = (node.args[0], tuple(node.meta["tensor_meta"].shape))
    network.graph.eliminate_dead_code()
    network.recompile()
    return network


def _tensor(array: Any) -> Any:
    tensor = torch.from_numpy(array)
    return tensor.to(memory_format=torch.channels_last) if array.ndim == 4 else tensor


def version() -> str:
    """Returns name and version."""
    return f"torch {torch.__version__}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    how = "inductor with freezing" if mode == "compile" else "eager"
    kind = ", autocast to bfloat16" if precision == "bf16" else ""
    return f"{how}, channels_last, inference_mode, num_threads={threads}{kind}"
