"""Truth values compared with each other and with constants; other types are TVM's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_models
import pytest
from relax_nets import one_function
from tvm import relax

from tvmdet.passes.legalize_equality import EQUALITIES

COMPARISONS = {
    "equal": (relax.op.equal, np.equal),
    "not_equal": (relax.op.not_equal, np.not_equal),
}
LEFT = np.array([[False, True, False, True]] * 2)
RIGHT = np.array([[False, False, True, True]])


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("constant", [None, True, False])
@pytest.mark.parametrize("dtype", ["bool", "int64", "float32"])
def test_comparisons(name: str, constant: bool | None, dtype: str) -> None:
    emit, compare = COMPARISONS[name]
    arrays = [LEFT.astype(dtype), RIGHT.astype(dtype)]
    if constant is not None:
        arrays[1] = np.asarray(constant, dtype)

    def body(_: relax.BlockBuilder, left: Any, right: Any = None) -> Any:
        return emit(left, relax.const(arrays[1], dtype) if right is None else right)

    given = arrays if constant is None else arrays[:1]
    module = one_function([(array.shape, dtype) for array in given], body)
    (found,) = onnx_models.run_relax(relax.transform.LegalizeOps(EQUALITIES)(module), *given)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, compare(*arrays))
