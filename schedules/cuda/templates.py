"""The templates for CUDA GPUs, in the order in which they are asked."""

from __future__ import annotations

from tvmdet.schedules.base import Template
from tvmdet.schedules.cuda.elementwise import CudaElementwise
from tvmdet.schedules.cuda.plain_loops import CudaPlainLoops
from tvmdet.schedules.cuda.product_f32 import ProductF32
from tvmdet.schedules.cuda.product_tensor_core import ProductTensorCore
from tvmdet.schedules.cuda.reduction import CudaReduction
from tvmdet.schedules.cuda.rows import CudaRows

__all__ = ["CUDA_TEMPLATES"]

CUDA_TEMPLATES: tuple[Template, ...] = (
    ProductTensorCore(),
    ProductF32(),
    CudaElementwise(),
    CudaRows(),
    CudaReduction(),
    CudaPlainLoops(),
)
