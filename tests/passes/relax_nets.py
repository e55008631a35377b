"""Small ONNX networks through the passes, and readers of what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import onnxruntime
import tvm
from assertions import assert_close
from tvm import relax

from tvmdet.frontend import Model, import_onnx


def import_raw(
    graph: onnx_models.Graph,
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    folder: Path,
) -> Model:
    """Imports a graph without a head."""
    proto = graph.model(dict(inputs), dict.fromkeys(outputs))
    return import_onnx(onnx_models.save(proto, folder / "net.onnx"), raw=True)


def operators(module: tvm.IRModule, name: str = "main") -> Counter[str]:
    """Counts the Relax operators of a function."""
    counts: Counter[str] = Counter()
    for block in module[name].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
                counts[value.op.name.removeprefix("relax.")] += 1
    return counts


def layouts(module: tvm.IRModule) -> set[str]:
    """Data layouts of all convolutions and pools."""
    return {
        str(getattr(binding.value.attrs, "data_layout", None) or binding.value.attrs.layout)
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and isinstance(binding.value.op, tvm.ir.Op)
        and ("conv2d" in binding.value.op.name or "pool2d" in binding.value.op.name)
    }


def assert_same_as_onnx_runtime(
    model: Model, module: tvm.IRModule, seed: int = 0, atol: float = 2e-5
) -> None:
    """Runs a rewritten module and ONNX Runtime on the same random input."""
    rng = np.random.default_rng(seed)
    proto = model.onnx_at(1)
    feeds = {
        value.name: rng.standard_normal(
            [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ).astype("float32")
        for value in proto.graph.input
    }
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(list(model.output_names), feeds)
    got = onnx_models.run_relax(module, *(feeds[name] for name in model.input_names))
    for name, array, want in zip(model.output_names, got, expected, strict=True):
        assert_close(array, want, rtol=2e-5, atol=atol, name=name)


def one_function(inputs: Sequence[tuple[tuple[int, ...], str]], emit: Any) -> tvm.IRModule:
    """A module whose ``main`` is one dataflow block written by ``emit(builder, *vars)``."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(shape, dtype))
        for i, (shape, dtype) in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(emit(builder, *params))
        builder.emit_func_output(out)
    return builder.get()
