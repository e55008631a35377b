"""A ``.tvmdet`` file becomes a :class:`Detector` on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tvmdet.arguments import as_path, check_kind
from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.cpus import check_local_threads
from tvmdet.errors import ArtifactError, InputError, TargetError
from tvmdet.gpus import Gpu, GpuNeeds, find_gpus
from tvmdet.runtime.detector import Detector
from tvmdet.runtime.native import CPU, NativeModule, configure_workers
from tvmdet.runtime.raw import RawSignature
from tvmdet.runtime.threads import native_thread
from tvmdet.spec import DetectorSpec
from tvmdet.targets import host_features

__all__ = [
    "Host",
    "choose_target",
    "explain_targets",
    "load",
    "load_native",
    "never_run",
    "read_signature",
    "read_spec",
]


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a machine can run.

    Attributes:
        arch: As ``platform.machine()`` names it.
        features: CPU flags, as ``/proc/cpuinfo`` names them.
        gpu: Its GPUs; None to ask the driver when a file has code for one.
        elsewhere: What messages call another machine; empty for this one.
    """

    arch: str
    features: frozenset[str]
    gpu: Gpu | None = None
    elsewhere: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.elsewhere or "this machine"

    @classmethod
    def this_machine(cls) -> Host:
        """Returns the machine that this process runs on."""
        return cls(arch=platform.machine(), features=host_features())

    def lacks(self, target: TargetEntry) -> str:
        """Says what the machine lacks to run a target; empty when it can."""
        if target.arch != self.arch:
            return f"needs {target.arch}, {self.name} is {self.arch}"
        missing = [
            flag
            for flag in target.required_features
            if flag not in self.features and not (target.gpu and flag == target.gpu["sm"])
        ]
        if missing:
            cpu = f"the CPU of {self.elsewhere}" if self.elsewhere else "this CPU"
            return f"{cpu} lacks {', '.join(missing)}"
        return self.gpus.lacks(GpuNeeds(**target.gpu)) if target.gpu else ""

    @property
    def gpus(self) -> Gpu:
        """The GPUs, as given or as the driver names them."""
        return self.gpu or find_gpus()


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    target: str | None = None,
    host: Host | None = None,
) -> Detector:
    """Loads a compiled detector, choosing the best of its targets that this machine can run.

    Nothing of the file is executed before the whole file and the chosen library have been
    checked against their SHA-256, and the CPU against what the library needs.

    Args:
        path: A ``.tvmdet`` file.
        threads: Threads to compute with; None means every CPU that the process may use. More than
            that are slower, which is warned of.
        target: Name of the target to use instead of the best one.
        host: The machine to choose for, instead of this one.

    Raises:
        ArtifactError: The file is damaged, or its library cannot be loaded.
        TargetError: The file holds nothing that this machine can run, or not ``target``.
        InputError: ``threads`` is not a count, or ``path`` no path.
    """
    path = as_path(path, "path")
    if host is not None:
        check_kind(host, Host, "host", "a tvmdet.runtime.loader.Host, or None")
    # TVM's runtime is imported over there while the file is checked here.
    thread = native_thread(check_local_threads(threads), configure_workers)
    host = host or Host.this_machine()
    artifact = Artifact.open(path)
    chosen = choose_target(artifact.targets, host, target, where=str(path))
    spec, signature = read_spec(artifact), read_signature(artifact)
    thread.wait_until_configured()
    device = host.gpus.device_for(GpuNeeds(**chosen.gpu)) if chosen.gpu else None
    module = thread.submit(partial(load_native, artifact, chosen, device)).result()
    return Detector(
        artifact=artifact,
        spec=spec,
        target=chosen,
        explanation=explain_targets(artifact.targets, host, chosen),
        module=module,
        thread=thread,
        signature=signature,
    )


def load_native(artifact: Artifact, target: TargetEntry, gpu: int | None = None) -> NativeModule:
    """Loads the compiled code of one target; to be called on a native thread.

    Args:
        artifact: An opened file, which the module does not need again.
        target: One of its targets, which this machine can run.
        gpu: Index of the GPU to run it on, of a target for one.

    Raises:
        ArtifactError: The file was changed since it was opened, or the code cannot be loaded.
    """
    return NativeModule(
        partial(artifact.copy_member, target.library),
        artifact.map_weights(target),
        name=f"{artifact.path} ({target.name})",
        device=CPU if gpu is None else ("cuda", gpu),
    )


def choose_target(
    targets: Sequence[TargetEntry], host: Host, name: str | None = None, *, where: str = "the file"
) -> TargetEntry:
    """Returns the target with the highest rank that ``host`` can run.

    Args:
        targets: What there is to choose from.
        host: The machine.
        name: Take the target of this name, if the machine can run it.
        where: The file, for error messages.

    Raises:
        TargetError: There is none; the message names each and what the machine lacks.
    """
    wanted = [target for target in targets if name in (None, target.name)]
    if not wanted:
        held = ", ".join(target.name for target in targets)
        raise TargetError(f"{where} holds no target {name!r}; it holds: {held}")
    runnable = [target for target in wanted if not host.lacks(target)]
    if not runnable:
        held = "; ".join(f"{target.name}: {host.lacks(target)}" for target in wanted)
        raise TargetError(
            f"{where} cannot run on {host.name}. It holds {held}. Compile it again for "
            f"{host.name}: tvmdet compile ... --target {'NAME' if host.elsewhere else 'host'}"
        )
    return max(runnable, key=lambda target: target.rank)


def explain_targets(targets: Sequence[TargetEntry], host: Host, chosen: TargetEntry) -> str:
    """Says for each target, one a line, whether it was chosen and why."""
    lines = []
    for target in targets:
        verdict = "chosen" if target == chosen else host.lacks(target) or "runs here too"
        lines.append(f"{target.name} (rank {target.rank}): {verdict}{never_run(target)}")
    return "\n".join(lines)


def never_run(target: TargetEntry) -> str:
    """Says of code for a GPU that nobody has seen it run, to follow a verdict; else nothing."""
    unseen = target.gpu is not None and target.gpu["never_run"]
    return "; never run on a GPU when it was compiled" if unseen else ""


# What reading a value of an unexpected type or shape raises; a manifest may hold any JSON.
_MALFORMED = (InputError, AttributeError, KeyError, TypeError, ValueError)


def read_spec(artifact: Artifact) -> DetectorSpec:
    """Returns the spec in a file.

    Raises:
        ArtifactError: It cannot be used.
    """
    try:
        return DetectorSpec.from_dict(artifact.manifest["spec"])
    except _MALFORMED as error:
        raise _unusable(artifact, "a spec", error) from error


def read_signature(artifact: Artifact) -> RawSignature | None:
    """Returns the inputs and outputs of a network without a head, or None for a detector.

    Raises:
        ArtifactError: Their description cannot be used.
    """
    described = artifact.manifest["raw"]
    if described is None:
        return None
    try:
        return RawSignature.from_manifest(described, artifact.manifest["batch_sizes"])
    except _MALFORMED as error:
        raise _unusable(artifact, "a description of inputs and outputs", error) from error


def _unusable(artifact: Artifact, what: str, error: Exception) -> ArtifactError:
    # A KeyError's own text is the key alone.
    reason = f"no {error}" if isinstance(error, KeyError) else error
    return ArtifactError(
        f"{artifact.path} has {what} that cannot be used: {reason}; "
        "compile it again with this version of tvmdet"
    )
