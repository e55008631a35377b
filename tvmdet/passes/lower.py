"""The path of a detector from the imported network to unscheduled kernels, as one visible list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tvm
from tvm import relax

from tvmdet.errors import ModelError, ShapeError, TvmdetError
from tvmdet.passes.attach_head import attach_head, attach_nothing
from tvmdet.passes.attention import FuseAttention
from tvmdet.passes.batch_matmul import matmul_legalizer
from tvmdet.passes.by_picture import MarkByPicture
from tvmdet.passes.check_legalized import CheckLegalized
from tvmdet.passes.conv_algorithms import Algorithm, usual_algorithm
from tvmdet.passes.convert_to_nhwc import ConvertToNHWC
from tvmdet.passes.cuda.legalize import cuda_legalizers
from tvmdet.passes.cuda.use_device_kernels import UseDeviceKernels
from tvmdet.passes.fold_channel_order import FoldChannelOrder
from tvmdet.passes.fold_conv2d_affine import FoldConv2dAffine
from tvmdet.passes.fold_flatten_order import FoldFlattenOrder
from tvmdet.passes.fold_silu import FoldSilu
from tvmdet.passes.fuse_pairs import FuseConvPairs, PairChoice, separately
from tvmdet.passes.fuse_reads import FuseReads
from tvmdet.passes.legalize_activations import ACTIVATIONS
from tvmdet.passes.legalize_equality import EQUALITIES
from tvmdet.passes.legalize_gates import GATES
from tvmdet.passes.legalize_reshape import legalize_reshape
from tvmdet.passes.legalize_rows import row_legalizers
from tvmdet.passes.legalize_take import legalize_take
from tvmdet.passes.lower_cumsum import LowerCumsum
from tvmdet.passes.lower_grid_sample import LowerGridSample
from tvmdet.passes.lower_non_max_suppression import LowerNonMaxSuppression
from tvmdet.passes.lower_roi_align import LowerRoiAlign
from tvmdet.passes.lower_scatter import LowerScatter
from tvmdet.passes.lower_sorting import LowerSorting
from tvmdet.passes.pack_conv2d import Conv2dPacker
from tvmdet.passes.rewrite_dense import RewriteDense
from tvmdet.passes.store_rounded import StoreRounded
from tvmdet.passes.turn_products import TurnProducts
from tvmdet.steps import reached
from tvmdet.targets import Target

__all__ = ["CODE_OPTIONS", "lower", "lowering_phases", "tvm_target"]

Phase = tuple[str, Callable[[tvm.IRModule], tvm.IRModule]]


def lowering_phases(
    target: Target, algorithm: Algorithm = usual_algorithm, pairs: PairChoice = separately
) -> list[Phase]:
    """Returns the phases by name; each takes and returns a module."""
    legalize = _legalizers(target, algorithm)
    return [
        # Arithmetic: fewer operators, the same numbers.
        ("fold_conv2d_affine", FoldConv2dAffine()),
        ("fold_channel_order", FoldChannelOrder()),
        ("rewrite_dense", RewriteDense()),
        # Layout: pictures in NHWC, transposes gone.
        ("convert_to_nhwc", ConvertToNHWC()),
        ("fold_flatten_order", FoldFlattenOrder()),
        ("turn_products", TurnProducts()),
        ("lower_grid_sample", LowerGridSample()),
        ("lower_roi_align", LowerRoiAlign()),
        ("fold_silu", FoldSilu()),
        ("fold_constants", relax.transform.FoldConstant()),
        # Kernels: every operator a TIR function, weights packed, neighbours fused.
        ("lower_sorting", LowerSorting()),
        ("lower_cumsum", LowerCumsum()),
        ("lower_scatter", LowerScatter()),
        ("lower_non_max_suppression", LowerNonMaxSuppression()),
        ("fuse_attention", FuseAttention(target)),
        *_device_kernels(target),
        ("legalize", relax.transform.LegalizeOps(legalize)),
        ("check_legalized", CheckLegalized()),
        ("annotate_patterns", relax.transform.AnnotateTIROpPattern()),
        ("fold_packed_constants", relax.transform.FoldConstant()),
        ("fuse_operators", relax.transform.FuseOps()),
        ("fuse_kernels", relax.transform.FuseTIR()),
        # What TVM's fusion leaves: reads through an index, two convolutions in one kernel.
        ("fuse_reads", FuseReads()),
        ("fuse_pairs", FuseConvPairs(pairs)),
        ("drop_joined", relax.transform.DeadCodeElimination()),
        # What is left knows who reads what.
        ("store_rounded", StoreRounded()),
        # A reshape that nothing fused with is a new view of the same bytes.
        ("view_reshapes", relax.transform.RewriteDataflowReshape()),
        ("remove_dead_code", relax.transform.DeadCodeElimination()),
    ]


def _device_kernels(target: Target) -> list[Phase]:
    replace: Any = UseDeviceKernels()
    return [("use_device_kernels", replace)] if target.kind == "cuda" else []


def _legalizers(target: Target, algorithm: Algorithm) -> dict[str, Any]:
    """Returns how operators become TIR functions, where TVM's own way does not serve."""
    if target.kind == "cuda":
        return cuda_legalizers(target, algorithm)
    return {
        **ACTIVATIONS,
        **GATES,
        **EQUALITIES,
        **row_legalizers(target),
        "relax.nn.conv2d": Conv2dPacker(target, algorithm),
        "relax.matmul": matmul_legalizer(target),
        "relax.reshape": legalize_reshape,
        "relax.take": legalize_take,
    }


def lower(
    model: Any,
    batch_sizes: Sequence[int],
    target: Target,
    *,
    algorithm: Algorithm = usual_algorithm,
    pairs: PairChoice = separately,
    dump: Path | None = None,
) -> tvm.IRModule:
    """Lowers a detector to a module of fused, unscheduled TIR functions.

    Args:
        model: A :class:`tvmdet.frontend.Model`.
        batch_sizes: One entry function per batch size is made. On a CPU large maps of a batch are
            computed by kernels of one picture, if the network works for one.
        target: Whose vectors the weights are packed for.
        algorithm: Chooses for each convolution that several algorithms could compute.
        pairs: Chooses the depthwise and pointwise convolutions that become one kernel.
        dump: A folder that receives the module's text after every phase.

    Returns:
        A module with the functions ``detect_b<N>`` (``run_b<N>`` for raw networks).

    Raises:
        ModelError: A phase fails; names it.
        ShapeError: The network does not fit its spec.
        UnsupportedOperatorError: An operator has no kernel.
    """
    builder = relax.BlockBuilder()
    kind = "run" if model.spec.family == "raw" else "detect"
    one = _network_of_one_picture(model, target) if max(batch_sizes) > 1 else None
    networks = {size: model.relax_at(size) for size in batch_sizes}
    if one is not None:
        networks.setdefault(1, one)
    for size, network in networks.items():
        if kind == "run":
            attach_nothing(builder, network, f"run_b{size}")
        else:
            attach_head(builder, network, model.output_names, model.spec, f"detect_b{size}")
    mod = builder.get()
    phases = lowering_phases(target, algorithm, pairs)
    if one is not None:
        phases += _calls_by_picture(kind, batch_sizes, target)
    with tvm_target(target):
        for index, (name, phase) in enumerate(phases):
            mod = _run(name, phase, mod)
            if dump is not None:
                dump.mkdir(parents=True, exist_ok=True)
                text = mod.script(show_meta=False)
                (dump / f"{index:02}_{name}.py").write_text(text, encoding="utf-8")
    return mod


def _network_of_one_picture(model: Any, target: Target) -> tvm.IRModule | None:
    """Returns the network whose kernels compute large maps of a batch; None if there is none."""
    if target.kind == "cuda":
        return None  # a GPU has more to do at a time with the whole batch
    try:
        return model.relax_at(1)
    except ShapeError:
        return None  # the export fixes another batch


def _calls_by_picture(kind: str, batch_sizes: Sequence[int], target: Target) -> list[Phase]:
    one = f"{kind}_b1"

    def drop_helper(mod: tvm.IRModule) -> tvm.IRModule:
        mod = mod.clone()
        del mod[one]
        return mod

    marks: list[Phase] = []
    for size in batch_sizes:
        if size > 1:
            mark: Any = MarkByPicture(f"{kind}_b{size}", one, size, target.l2_bytes)
            marks.append((f"by_picture_b{size}", mark))
    if 1 not in batch_sizes:
        marks.append(("drop_one_picture", drop_helper))
    return [*marks, ("remove_batch_kernels", relax.transform.DeadCodeElimination())]


def _run(
    name: str, phase: Callable[[tvm.IRModule], tvm.IRModule], mod: tvm.IRModule
) -> tvm.IRModule:
    reached(f"TVM lowers the network, phase {name}")
    try:
        return phase(mod)
    except TvmdetError:
        raise
    except Exception as error:  # TVM raises anything
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise ModelError(
            f"the network cannot be lowered, phase {name}: {reason}; report it with the model, "
            "or simplify the model (onnxslim) and compile it again"
        ) from error


CODE_OPTIONS: Final[Mapping[str, Any]] = {"tirx.disable_cse_tir": True}
"""Options of TVM's own passes below the schedule; those for CPUs (:mod:`.cpu_pipeline`) leave the
search out. LLVM finds common subexpressions itself: with and
without TVM's search for them the kernels of a YOLOv8n took the same time (15.1 and 14.9 ms in sum),
and the search was a third of the time to compile its Winograd kernels for a batch of 4."""


def tvm_target(target: Target, threads: int | None = None) -> tvm.target.Target:
    """Returns TVM's target for one of ours."""
    options = dict(target.tvm)
    if threads is not None:
        options["num-cores"] = threads
    return tvm.target.Target(options)
