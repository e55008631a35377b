"""What the compiler chooses where tuning records speak, and where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import kernels_of, lower_network
from tvm import relax
from tvmdet.schedules.base import Decision, fingerprint
from tvmdet.targets import Target, get_target

from tvmdet.compiler.schedule import measured_algorithm, measured_pairs, schedule_kernels
from tvmdet.passes.conv_algorithms import ALGORITHMS, AlgorithmName, ConvLayer
from tvmdet.passes.fuse_pairs import ConvPair, pair_anchor
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore

V4 = get_target("x86-64-v4")
AMX = get_target("sapphirerapids").at_precision("bf16")
ANCHOR = "conv2d n1 h40 w40 c64 oc64 k3x3 s1x1 p1.1.1.1 d1x1 g1 float32"
LARGER = ANCHOR.replace("h40 w40", "h52 w52")
DEPTHWISE = "depthwise_conv2d n1 h40 w40 c64 k3x3 s1x1 p1.1.1.1 d1x1 float32"
POINTWISE = "conv2d n1 h40 w40 c64 oc64 k1x1 s1x1 p0.0.0.0 d1x1 g1 float32"
SOME = Decision.of("x86.conv2d_nhwc", tile_w=1)


@pytest.fixture
def store(tmp_path: Path) -> TuningStore:
    return TuningStore(writable=tmp_path)


def _put(store: TuningStore, anchor: str, seconds: float, target: Target = V4, **more: Any) -> None:
    fields = {"fingerprint": f"{len(store.records(target.name)):016x}", "decision": SOME, **more}
    store.append(
        TuningRecord(
            target=target.name,
            anchor=anchor,
            latencies_s=(seconds,),
            error="",
            error_kind="",
            threads=2,
            tvm="0",
            time=0.0,
            model="m",
            **{"cpu": "", **fields},
        )
    )


def _layer(anchor: str = ANCHOR) -> ConvLayer:
    order: tuple[AlgorithmName, ...] = ("winograd4", "direct")
    return ConvLayer(
        anchor=anchor,
        weights_sha256="",
        possible=order,
        algorithms=order,
        fine=order,
        exact=order,
    )


def test_without_records_the_usual_algorithm(store: TuningStore) -> None:
    assert measured_algorithm(V4, store, 2)(_layer()) == "winograd4"
    _put(store, ANCHOR, 1.0)  # of the other algorithm only: says nothing of the usual one
    assert measured_algorithm(V4, store, 2)(_layer()) == "winograd4"


def test_the_faster_algorithm_by_the_records_of_the_layer(store: TuningStore) -> None:
    _put(store, ALGORITHMS["winograd4"] + ANCHOR, 2.0)
    _put(store, ANCHOR, 1.0)
    assert measured_algorithm(V4, store, 2)(_layer()) == "direct"


def test_a_similar_layer_speaks_for_one_without_records(store: TuningStore) -> None:
    _put(store, ALGORITHMS["winograd4"] + LARGER, 2.0)
    assert measured_algorithm(V4, store, 2)(_layer()) == "winograd4"
    _put(store, LARGER, 1.0)
    assert measured_algorithm(V4, store, 2)(_layer()) == "direct"
    _put(store, ALGORITHMS["winograd4"] + ANCHOR, 9.0)  # its own record counts for more
    assert measured_algorithm(V4, store, 2)(_layer()) == "winograd4"


def test_a_batch_is_computed_by_the_algorithm_of_one_picture(store: TuningStore) -> None:
    layer = _layer(ANCHOR.replace(" n1 ", " n8 "))
    choose = measured_algorithm(V4, store, 2)
    _put(store, layer.anchor, 8.0)
    _put(store, ALGORITHMS["winograd4"] + layer.anchor, 9.0)
    assert choose(layer) == "direct"  # what was measured of the batch, as long as nothing else was
    _put(store, ANCHOR, 2.0)
    _put(store, ALGORITHMS["winograd4"] + ANCHOR, 1.0)
    assert choose(layer) == "winograd4"


def test_one_record_of_one_picture_says_less_than_a_comparison_of_the_batch(
    store: TuningStore,
) -> None:
    layer = _layer(ANCHOR.replace(" n1 ", " n8 "))
    _put(store, ALGORITHMS["winograd4"] + ANCHOR, 1.0)
    _put(store, layer.anchor, 8.0)
    _put(store, ALGORITHMS["winograd4"] + layer.anchor, 9.0)
    assert measured_algorithm(V4, store, 2)(layer) == "direct"


def test_pairs_of_a_batch_are_those_of_one_picture(store: TuningStore) -> None:
    many = [anchor.replace(" n1 ", " n8 ") for anchor in (DEPTHWISE, POINTWISE)]
    pair = ConvPair(depthwise=many[0], pointwise=many[1], bytes_between=1)
    choose = measured_pairs(V4, store, 2)
    for anchor, seconds in zip((*many, pair_anchor(*many)), (8.0, 8.0, 8.0), strict=True):
        _put(store, anchor, seconds)
    assert choose(pair)
    for anchor in (DEPTHWISE, POINTWISE, pair_anchor(DEPTHWISE, POINTWISE)):
        _put(store, anchor, 1.0 if anchor != pair_anchor(DEPTHWISE, POINTWISE) else 3.0)
    assert not choose(pair)


@pytest.mark.parametrize(("together", "chosen"), [(2.0, True), (2.9, False), (3.5, False)])
def test_a_pair_must_be_clearly_faster_than_its_parts(
    store: TuningStore, together: float, chosen: bool
) -> None:
    _put(store, DEPTHWISE, 1.0)
    _put(store, POINTWISE, 2.0)
    _put(store, pair_anchor(DEPTHWISE, POINTWISE), together)
    pair = ConvPair(depthwise=DEPTHWISE, pointwise=POINTWISE, bytes_between=1)
    assert measured_pairs(V4, store, 2)(pair) is chosen


@pytest.mark.parametrize(
    ("size", "chosen"), [(8 * V4.l2_bytes, True), (8 * V4.l2_bytes - 1, False)]
)
def test_a_pair_without_records_depends_on_the_picture(
    store: TuningStore, size: int, chosen: bool
) -> None:
    _put(store, DEPTHWISE, 1.0)
    pair = ConvPair(depthwise=DEPTHWISE, pointwise=POINTWISE, bytes_between=size)
    assert measured_pairs(V4, store, 2)(pair) is chosen


def _conv3x3_of(filters: int) -> Any:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        channels = int(x.ty.shape[-1])
        weight = np.random.default_rng(0).standard_normal((filters, 3, 3, channels))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        kernel = relax.const(weight.astype("float32"))
        return builder.emit(relax.op.nn.conv2d(x, kernel, padding=[1] * 4, **layouts))

    return emit


@pytest.mark.parametrize(
    ("target", "algorithm"), [(V4, "winograd4"), (AMX, "amx")], ids=["winograd", "amx"]
)
def test_a_kernel_is_scheduled_like_that_of_another_picture(
    target: Target, algorithm: str, store: TuningStore
) -> None:
    known, new = (np.zeros((1, side, side, 32), "float32") for side in (40, 52))
    emit = _conv3x3_of(32)
    lowered = lower_network(emit, [new], target, algorithm)

    def source() -> dict[str, int]:
        return schedule_kernels(lowered, target, store, 2).sources

    assert source() == {"default": 1}
    (other,) = kernels_of(_conv3x3_of(64), [known], target, algorithm)
    _put(store, other.workload.anchor, 1.0, target, decision=other.decisions[1])
    assert source() == {"default": 1}, "a layer of other filters"
    (same,) = kernels_of(emit, [known], target, algorithm)
    (own,) = kernels_of(emit, [new], target, algorithm)
    first = own.decisions[: own.template.told_by_other_pictures]
    for seconds, wanted in ((1.0, first[1]), (0.5, first[-1])):
        _put(store, same.workload.anchor, seconds, target, decision=wanted)
        done = schedule_kernels(lowered, target, store, 2)
        assert (done.sources, list(done.decisions.values())) == ({"near": 1}, [wanted])
    # What is far down in a ranking serves to choose among the first.
    _put(store, same.workload.anchor, 0.1, target, decision=same.decisions[-1])
    (decision,) = schedule_kernels(lowered, target, store, 2).decisions.values()
    assert decision in first


def test_a_direct_kernel_of_another_size_says_nothing(store: TuningStore) -> None:
    known, new = (np.zeros((1, side, side, 16), "float32") for side in (20, 26))
    (kernel,) = kernels_of(_conv3x3_of(32), [known], V4)
    _put(store, kernel.workload.anchor, 1.0, decision=kernel.decisions[1])
    done = schedule_kernels(lower_network(_conv3x3_of(32), [new], V4), V4, store, 2)
    assert done.sources == {"default": 1}


def test_the_best_decision_that_there_still_is(store: TuningStore) -> None:
    weight = np.zeros((32, 3, 3, 16), "float32")

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        return builder.emit(relax.op.nn.conv2d(x, relax.const(weight), **layouts))

    data = np.zeros((1, 20, 20, 16), "float32")
    (kernel,) = kernels_of(emit, [data], V4)
    second = kernel.decisions[-1]
    gone = Decision.of(second.template, oc_blocks=1, tile_w=99, order="co_inner", rows=1)
    _put(store, kernel.workload.anchor, 1.0, decision=gone)
    _put(store, kernel.workload.anchor, 3.0, decision=kernel.decisions[1])
    _put(store, kernel.workload.anchor, 2.0, decision=second)
    done = schedule_kernels(lower_network(emit, [data], V4), V4, store, 2)
    assert done.sources == {"borrowed": 1}
    assert list(done.decisions.values()) == [second]
    (why,) = done.fallbacks.values()
    assert "is not one that" in why and "99" in why
    # Its own second best counts for more than another's best, as if the first had never been.
    own = kernel.decisions[2]
    _put(store, kernel.workload.anchor, 9.0, decision=own, fingerprint=fingerprint(kernel.func))
    _put(store, kernel.workload.anchor, 0.5, decision=gone, fingerprint=fingerprint(kernel.func))
    done = schedule_kernels(lower_network(emit, [data], V4), V4, store, 2)
    assert (done.sources, list(done.decisions.values())) == ({"tuned": 1}, [own])


def test_a_record_of_another_processor_says_so(store: TuningStore) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        weight = relax.const(np.zeros((32, 3, 3, 16), "float32"))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        return builder.emit(relax.op.nn.conv2d(x, weight, **layouts))

    data = np.zeros((1, 20, 20, 16), "float32")
    (kernel,) = kernels_of(emit, [data], V4)
    facts = {"fingerprint": fingerprint(kernel.func)}
    for cpu, at, source in (("another", 2, "elsewhere"), (store.cpu, 1, "tuned")):
        _put(store, kernel.workload.anchor, 9.0, decision=kernel.decisions[at], cpu=cpu, **facts)
        done = schedule_kernels(lower_network(emit, [data], V4), V4, store, 2)
        assert done.sources == {source: 1}
        assert list(done.decisions.values()) == [kernel.decisions[at]]


def test_a_neighbour_serves_where_nothing_of_its_own_is_left(store: TuningStore) -> None:
    known, new = (np.zeros((1, side, side, 16), "float32") for side in (40, 52))
    (near,), (kernel,) = (
        kernels_of(_conv3x3_of(32), [data], V4, "winograd4") for data in (known, new)
    )
    _put(store, near.workload.anchor, 1.0, decision=near.decisions[3])
    gone = Decision.of(kernel.template.name, tile=99)
    _put(store, kernel.workload.anchor, 1.0, decision=gone)
    lowered = lower_network(_conv3x3_of(32), [new], V4, "winograd4")
    assert schedule_kernels(lowered, V4, store, 2).sources == {"near": 1}
