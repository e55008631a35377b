"""Which rivals there are, and what each needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmdet.errors import InputError

__all__ = ["PRECISIONS", "RIVALS", "TVMDET", "Rival", "find_rivals"]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One runtime in one mode.

    Attributes:
        name: As results name it.
        group: As the command line names it, and its environment's folder; all modes together.
        module: What must be importable.
        requirements: What pip installs, newest releases.
        bare_requirements: What pip installs without what those ask for.
        precisions: What it can compute in on a CPU; None for what its file was compiled in.
        mode: Passed to its file's ``load``.
        one_row: It has no batch dimension and is given the network at batch 1.
    """

    name: str
    group: str
    module: str
    requirements: tuple[str, ...]
    bare_requirements: tuple[str, ...] = ()
    precisions: tuple[str, ...] | None = ("fp32",)
    mode: str = ""
    one_row: bool = False

    @property
    def file(self) -> Path:
        """The file that loads and runs it."""
        return Path(__file__).with_name(f"{self.group}.py")

    def computes_in(self, precision: str) -> bool:
        """Whether it can compute in a precision."""
        return self.precisions is None or precision in self.precisions


_TORCH = ("torch", "torchvision", "onnx", "onnx2torch", "numpy")

TVMDET = Rival(
    name="tvmdet",
    group="tvmdet",
    module="tvmdet",
    requirements=(),
    precisions=None,
)

RIVALS = (
    Rival(
        name="onnxruntime",
        group="onnxruntime",
        module="onnxruntime",
        requirements=("onnxruntime", "numpy"),
    ),
    Rival(
        name="openvino",
        group="openvino",
        module="openvino",
        requirements=("openvino", "numpy"),
        precisions=("fp32", "bf16"),
    ),
    Rival(
        name="ncnn",
        group="ncnn",
        module="ncnn",
        requirements=("ncnn", "numpy"),
        # pnnx asks for PyTorch, which its converter of ONNX files does not use.
        bare_requirements=("pnnx",),
        precisions=("fp32", "bf16"),
        one_row=True,
    ),
    # Its "low" precision computes in float32 on x86.
    Rival(name="mnn", group="mnn", module="MNN", requirements=("MNN", "numpy")),
    Rival(
        name="torch-eager",
        group="torch",
        module="onnx2torch",
        requirements=_TORCH,
        precisions=("fp32", "bf16"),
        mode="eager",
    ),
    Rival(
        name="torch-compile",
        group="torch",
        module="onnx2torch",
        requirements=_TORCH,
        precisions=("fp32", "bf16"),
        mode="compile",
    ),
)

PRECISIONS = tuple(dict.fromkeys(one for rival in RIVALS for one in rival.precisions or ()))
"""What some rival can compute in."""


def find_rivals(names: Sequence[str]) -> tuple[Rival, ...]:
    """Returns the rivals of some names or groups, each once, in the order named.

    Raises:
        InputError: A name is not known.
    """
    found: dict[str, Rival] = {}
    for name in names:
        group = [rival for rival in RIVALS if name in (rival.name, rival.group)]
        if not group:
            known = ", ".join(dict.fromkeys(rival.group for rival in RIVALS))
            raise InputError(f"no rival is called {name!r}; there are: {known}")
        found |= {rival.name: rival for rival in group}
    return tuple(found.values())
