"""Large constants become elements of one added parameter."""

from __future__ import annotations

import numpy as np
import tvm
from assertions import assert_close
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvmdet.passes.lift_weights import LiftWeights

LARGE = np.arange(1024, dtype=np.float32)


def network(*constants: np.ndarray) -> tvm.IRModule:
    """Returns one function per constant, ``main_<i>(x) = x + constant``, as bytecode takes it."""
    builder = relax.BlockBuilder()
    for index, constant in enumerate(constants):
        x = relax.Var("x", relax.TensorType(constant.shape, str(constant.dtype)))
        with builder.function(f"main_{index}", [x], attrs={"global_symbol": f"main_{index}"}):
            # Twice in a function, and once inside a tuple.
            total = builder.emit(relax.op.add(x, relax.const(constant)))
            total = builder.emit(relax.op.add(total, relax.const(constant)))
            builder.emit_func_output(relax.Tuple([total, relax.const(constant)]))
    return builder.get()


def test_before_and_after() -> None:
    @I.ir_module
    class Expected:
        @R.function
        def main_0(
            x: R.Tensor((1024,), "float32"), weights: R.Tuple(R.Tensor((1024,), "float32"))
        ) -> R.Tuple(R.Tensor((1024,), "float32"), R.Tensor((1024,), "float32")):
            weight0: R.Tensor((1024,), "float32") = weights[0]
            once: R.Tensor((1024,), "float32") = R.add(x, weight0)
            twice: R.Tensor((1024,), "float32") = R.add(once, weight0)
            return (twice, weight0)

    lift = LiftWeights()
    after = lift(network(LARGE))
    tvm.ir.assert_structural_equal(relax.transform.Normalize()(after), Expected)
    (array,) = lift.weights
    assert_close(array, LARGE)


def test_equal_constants_share_an_element_and_every_function_takes_all() -> None:
    lift = LiftWeights()
    after = lift(network(LARGE, LARGE.copy(), LARGE.reshape(32, 32), LARGE + 1))
    assert [array.shape for array in lift.weights] == [(1024,), (32, 32), (1024,)]
    types = {str(after[f"main_{index}"].params[-1].ty) for index in range(4)}
    assert len(types) == 1


def test_small_constants_and_other_types_stay() -> None:
    lift = LiftWeights()
    before = network(LARGE[:10], np.ones(5000, bool))
    tvm.ir.assert_structural_equal(lift(before), before)
    assert lift.weights == []


def test_the_answer_is_the_same() -> None:
    x = np.random.default_rng(0).random(1024, np.float32)
    lift = LiftWeights()
    module = tvm.transform.Sequential([relax.transform.LegalizeOps()])(network(LARGE))
    for phase in (relax.transform.CallTIRRewrite(), relax.transform.LowerAllocTensor()):
        module = phase(module)
    module = lift(module)
    executable = tvm.compile(module, tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    weights = [tvm.runtime.tensor(array) for array in lift.weights]
    total, itself = machine["main_0"](tvm.runtime.tensor(x), weights)
    assert_close(total.numpy(), x + LARGE + LARGE)
    assert_close(itself.numpy(), LARGE)
