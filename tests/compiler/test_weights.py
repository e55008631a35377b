"""Weights as parameters: what is lifted, what is shared, and that results stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax, topi

from tvmdet.compiler.weights import lift_weights

LARGE = np.arange(512, dtype="float32")
SMALL = np.arange(4, dtype="float32")


def module_of(*functions: str) -> tvm.IRModule:
    """Functions that add a large constant twice and multiply with a small one."""
    builder = relax.BlockBuilder()
    for name in functions:
        x = relax.Var("x", relax.TensorType((512,), "float32"))
        with builder.function(name, [x]):
            with builder.dataflow():
                total = builder.emit_te(topi.add, x, relax.const(LARGE))
                again = builder.emit_te(topi.add, total, relax.const(LARGE.copy()))
                table = builder.emit_te(topi.reshape, again, (128, 4))
                output = builder.emit_output(
                    builder.emit_te(topi.multiply, table, relax.const(SMALL))
                )
            builder.emit_func_output(output)
    return builder.get()


def params_of(func: Any) -> list[tuple[int, ...]]:
    return [tuple(int(side) for side in param.ty.shape) for param in func.params]


def test_large_constants_become_the_last_parameters_and_small_ones_stay() -> None:
    module, weights = lift_weights(module_of("main"))
    assert params_of(module["main"]) == [(512,), (512,)]
    assert weights.functions == {"main": [0]}
    assert weights.tensors == [(0, "float32", (512,))]
    assert weights.data == LARGE.tobytes()


def test_functions_share_what_is_equal() -> None:
    _, weights = lift_weights(module_of("run_b1", "run_b2"))
    assert weights.functions == {"run_b1": [0], "run_b2": [0]}
    assert len(weights.data) == LARGE.nbytes


def test_every_tensor_begins_at_a_multiple_of_64_bytes() -> None:
    _, weights = lift_weights(module_of("main"))
    odd = weights.index_of(np.zeros(3, "uint8"))
    after = weights.index_of(np.ones(3, "uint8"))
    assert [weights.tensors[i][0] % 64 for i in (odd, after)] == [0, 0]
    assert weights.index_of(np.zeros(3, "uint8")) == odd
    assert weights.index_of(np.zeros(3, "int8")) not in (odd, after), "another type is another one"


def test_the_lifted_function_computes_the_same() -> None:
    module, weights = lift_weights(module_of("main"))
    built = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    x = np.full(512, 3, "float32")
    given = [tvm.runtime.tensor(np.frombuffer(weights.data, "float32"))]
    result = built["main"](tvm.runtime.tensor(x), *given).numpy()
    np.testing.assert_array_equal(result, (x + 2 * LARGE).reshape(128, 4) * SMALL)
