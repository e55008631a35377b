"""Parts of a result: what was measured, on which machine and how, and what its user adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tvmdet.report.result_quantities import Amount, Count

__all__ = [
    "Accuracy",
    "ArtifactFacts",
    "Machine",
    "ModelFacts",
    "PeakFacts",
    "Prices",
    "Setup",
    "TargetFacts",
]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The network that was compiled.

    Attributes:
        name: As its file was called.
        sha256: Of the ONNX file.
    """

    name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactFacts:
    """The compiled file.

    Attributes:
        path: Where it was.
        sha256: Of the whole file; null in results of schema 1.
        bytes: Size of the whole file.
        target_bytes: What the measured target needs of it: its library and all weights.
        family: The kind of detector, or ``raw``.
        batch_sizes: Those that were compiled.
        made_by: Versions of tvmdet and TVM that compiled it.
    """

    path: str
    sha256: str | None = None
    bytes: Count | None = None
    target_bytes: Count | None = None
    family: str = ""
    batch_sizes: tuple[int, ...] = ()
    made_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """Whose code ran.

    Attributes:
        name: Of the target.
        arch: As ``platform.machine()`` names it.
        required_features: CPU features that the code needs.
        precision: That the file was compiled in: ``fp32``, ``bf16``.
        bf16_layers: How many convolutions of it do compute in bfloat16.
    """

    name: str
    arch: str = ""
    required_features: tuple[str, ...] = ()
    precision: str = "fp32"
    bf16_layers: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that was measured on.

    Attributes:
        cpu: Model name.
        arch: As ``platform.machine()`` names it.
        cpus_usable: CPUs that the process may use.
        cpus_online: CPUs that there are.
        features: CPU features that matter to kernels.
        virtual: Whether a hypervisor is below.
        system: Kernel and its release.
        python: Version of the interpreter.
        load_average: Of 1, 5 and 15 minutes before the run.
        memory_bytes: Main memory.
        clock: What the kernel says of clocks: ``governor``, ``min_mhz``, ``max_mhz``, ``boost``;
            what it does not say is left out.
        accelerator: Of a GPU that ran the code: ``name``, ``capability``, ``driver_cuda``,
            ``count``, ``multiprocessors``, ``max_mhz``, ``memory_max_mhz``, ``memory_bytes``; what
            its driver does not say is left out. Null for CPUs.
    """

    cpu: str
    arch: str
    cpus_usable: Count
    cpus_online: Count
    features: tuple[str, ...]
    virtual: bool
    system: str
    python: str = ""
    load_average: tuple[float, ...] = ()
    memory_bytes: Count | None = None
    clock: Mapping[str, Any] = field(default_factory=dict)
    accelerator: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What was asked for, which repeats it.

    Attributes:
        onnx: Path of the ONNX file that rivals were given.
        against: Names of rivals.
        precisions: What rivals might compute in.
        batch_sizes: Rows of one call, one table each.
        picture: Path of the picture of end-to-end calls; null for a drawn one.
        picture_sha256: Of that file.
        rounds: Timed calls of each; null for a time.
        duration_s: Seconds for each table, when ``rounds`` is null.
        warm_up: Rounds that were not counted.
        per_layer: Whether kernels were timed.
        logs: Folder of further tuning records.
        tolerance: Greatest error of a contestant; null for what is usual.
        board: Host and port of the RPC server that it was measured on; null for this machine.
        board_key: What the server was started with.
    """

    onnx: str | None = None
    against: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    batch_sizes: tuple[int, ...] = (1,)
    picture: str | None = None
    picture_sha256: str | None = None
    rounds: Count | None = None
    duration_s: Amount = 20.0
    warm_up: Count = 3
    per_layer: bool = False
    logs: str | None = None
    tolerance: Amount | None = None
    board: str | None = None
    board_key: str = ""


@dataclass(frozen=True, kw_only=True)
class PeakFacts:
    """What the machine can do at most, measured.

    Attributes:
        threads: Threads that it was measured with.
        f32_gflops: float32 operations in registers.
        read_gb_per_s: Reading arrays again and again, by their size in bytes.
        disturbed: Whether others used the machine each time that it was measured.
    """

    threads: Count
    f32_gflops: Amount
    read_gb_per_s: Mapping[str, Amount]
    disturbed: bool = False


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What ``tvmdet eval --json`` found of the same file.

    Attributes:
        file: The evaluation's own file.
        images: Pictures that were looked at.
        ap: COCO's average precision of boxes, IoU 0.50 to 0.95, 0 to 1.
        ap50: At IoU 0.50.
        mask_ap: Of masks; null where there are none.
        reference_ap: Of boxes, in ONNX Runtime on the same pictures.
        target: Whose code was evaluated.
    """

    file: str
    images: Count
    ap: Amount | None
    ap50: Amount | None = None
    mask_ap: Amount | None = None
    reference_ap: Amount | None = None
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the user says the machine costs.

    Attributes:
        per_hour: Of the whole machine, however many of its CPUs were used.
        currency: As the user wrote it.
    """

    per_hour: Amount
    currency: str = ""
