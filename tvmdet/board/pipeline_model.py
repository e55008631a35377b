"""The cycles that llvm-mca predicts for a piece of code on the pipelines of a core.

llvm-mca (Di Biagio, "llvm-mca: LLVM Machine Code Analyzer", 2018) plays the code again and again
on LLVM's scheduling model of a core: how many instructions begin in a cycle, what unit each takes,
for how long. It takes every load to hit the first cache and every branch to be predicted.

A core without a model of its own is played on that of another, and which that is depends on LLVM's
version. :class:`PipelineModel` says it.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tvmdet.errors import TargetError

__all__ = ["PipelineModel", "find_model", "why_no_model"]

_TOOL: Final = re.compile(r"llvm-mca(-\d+)?")
_VERSION: Final = re.compile(r"LLVM version (\d+)[\w.]*")
_UNKNOWN: Final = re.compile(r"^<stdin>:(\d+):\d+: warning", re.MULTILINE)
_ROUNDS: Final = {True: 100, False: 20}
"""How often a block is played, short or not. The first round also fills the pipelines, with some
twenty cycles: a share of that stays in the mean."""

_SHORT: Final = 100
"""Instructions."""

_FEATURES: Final = {"aarch64": "+v8.6a,+fullfp16,+fp16fml,+bf16,+i8mm,+dotprod"}

_A57: Final = "Cortex-A57"
_SINCE_19: Final = {
    "cortex-a76": ("neoverse-n1", "Neoverse N1, the same core as a Cortex-A76"),
    "neoverse-n1": ("neoverse-n1", "Neoverse N1"),
    "neoverse-v1": ("neoverse-v1", "Neoverse V1"),
    "neoverse-v2": ("neoverse-v2", "Neoverse V2"),
}
_ALWAYS: Final = {
    "cortex-a53": ("cortex-a53", "Cortex-A53"),
    "cortex-a55": ("cortex-a55", "Cortex-A55"),
    "cortex-a57": ("cortex-a57", _A57),
    "cortex-a72": ("cortex-a72", f"{_A57}, which LLVM takes for a Cortex-A72"),
}
_SWAP: Final = re.compile(r"\tswp\w*\s+(\w+), (\w+), (\[\w+\])")
"""Kernels claim their rounds with it. The models of cores without it refuse it: a load and a store
are played instead."""

_OWN_MODELS: Final = 19
"""The first LLVM that was seen to have models of Neoverse N1, V1 and V2. Older ones play them, as
every Cortex-A of its class, on the Cortex-A57's, with half of an A76's multiplications a cycle."""


@dataclass(frozen=True, kw_only=True)
class PipelineModel:
    """LLVM's scheduling model of a core.

    Attributes:
        tool: Path of llvm-mca.
        version: Of its LLVM.
        triple: Of the code.
        mcpu: The core whose model is asked for.
        core: Whose model that is, for people.
    """

    tool: str
    version: int
    triple: str
    mcpu: str
    core: str
    _known: dict[tuple[bytes, ...], float] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Returns who predicts, and with whose pipelines."""
        return f"llvm-mca {self.version}, model of {self.core}"

    def cycles(self, blocks: Sequence[tuple[bytes, ...]]) -> list[float]:
        """Returns the cycles of one execution of each block while it is executed again and again.

        Args:
            blocks: Of each the bytes of its instructions.

        Raises:
            TargetError: LLVM does not know an instruction, or its tools fail.
        """
        new = [block for block in dict.fromkeys(blocks) if block not in self._known]
        if new:
            texts = self._texts(new)
            for short, rounds in _ROUNDS.items():
                those = [block for block in new if (len(block) <= _SHORT) is short]
                cycles = self._play([texts[block] for block in those], rounds) if those else []
                self._known.update(zip(those, cycles, strict=True))
        return [self._known[block] for block in blocks]

    def unreadable(self, codes: Sequence[bytes]) -> list[bytes]:
        """Returns those of some instructions that LLVM does not know."""
        return [
            code for code, text in zip(codes, self._disassemble(codes), strict=True) if not text
        ]

    def _texts(self, blocks: Sequence[tuple[bytes, ...]]) -> dict[tuple[bytes, ...], str]:
        """Returns the assembly text of blocks."""
        codes = [code for block in blocks for code in block]
        lines = self._disassemble(codes)
        if not all(lines):
            unknown = codes[lines.index("")].hex(" ")
            raise TargetError(
                f"llvm-mc {self.version} does not know the instruction {unknown}; install a newer "
                "LLVM (apt install llvm-19)"
            )
        at = iter(lines)
        return {block: "\n".join(itertools.islice(at, len(block))) for block in blocks}

    def _disassemble(self, codes: Sequence[bytes]) -> list[str]:
        """Returns the text of each instruction, empty where LLVM does not know it."""
        # Brackets keep an instruction apart: without them, bytes of one that is unknown would be
        # read with those of the next.
        listed = ["[" + " ".join(f"0x{byte:02x}" for byte in code) + "]" for code in codes]
        options = ["--disassemble", f"-triple={self.triple}", *self._features()]
        done = _run([_beside(self.tool), *options], "\n".join(listed) + "\n", may_warn=True)
        unknown = {int(number) - 1 for number in _UNKNOWN.findall(done.stderr)}
        lines = done.stdout.splitlines()
        read = iter([line for line in lines if line.startswith("\t") and line != "\t.text"])
        found = ["" if i in unknown else next(read, "") for i in range(len(codes))]
        if next(read, None) is not None:
            raise TargetError(
                f"llvm-mc {self.version} tells of more than {len(codes)} instructions"
            )
        return found

    def _play(self, texts: Sequence[str], rounds: int) -> list[float]:
        """Returns the cycles of one round of each text."""
        played = [_SWAP.sub(r"\tldr\t\2, \3\n\tstr\t\1, \3", text) for text in texts]
        regions = [f"# LLVM-MCA-BEGIN\n{text}\n# LLVM-MCA-END\n" for text in played]
        views = ["--instruction-info=0", "--resource-pressure=0", "--json"]
        options = [f"-mtriple={self.triple}", f"-mcpu={self.mcpu}", f"-iterations={rounds}"]
        said = _run([self.tool, *options, *self._features(), *views], "".join(regions)).stdout
        found = [region["SummaryView"]["TotalCycles"] for region in json.loads(said)["CodeRegions"]]
        if len(found) != len(texts):
            raise TargetError(f"{self.tool} tells of {len(found)} of {len(texts)} blocks of code")
        return [cycles / rounds for cycles in found]

    def _features(self) -> list[str]:
        known = _FEATURES.get(self.triple.partition("-")[0])
        return [f"-mattr={known}"] if known else []


def why_no_model() -> str:
    """Says what is missing to predict cycles; empty when nothing is."""
    if _newest_tool() is None:
        return "llvm-mca is not installed, or llvm-mc beside it is not (apt install llvm)"
    return ""


def find_model(mcpu: str, triple: str = "aarch64-linux-gnu") -> PipelineModel:
    """Returns the model that the newest llvm-mca of PATH has of a core.

    Args:
        mcpu: LLVM's name of the core.
        triple: Of the code.

    Raises:
        TargetError: There is no llvm-mca, or it has no model of such a core.
    """
    found = _newest_tool()
    if found is None:
        raise TargetError(f"cycles cannot be predicted: {why_no_model()}")
    tool, version = found
    if not triple.startswith("aarch64"):
        asked, core = mcpu, mcpu
    elif mcpu in _SINCE_19 and version < _OWN_MODELS:
        asked, core = "cortex-a57", f"{_A57}: LLVM {version} has none of {mcpu}"
    else:
        known = _ALWAYS | _SINCE_19
        if mcpu not in known:
            raise TargetError(
                f"there is no model of {mcpu} to predict cycles with; there are: "
                f"{', '.join(sorted(known))}"
            )
        asked, core = known[mcpu]
    return PipelineModel(tool=tool, version=version, triple=triple, mcpu=asked, core=core)


@functools.cache
def _newest_tool() -> tuple[str, int] | None:
    """Returns the llvm-mca of the newest LLVM in PATH that has llvm-mc too, and its version."""
    found: dict[str, int] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        place = Path(folder or ".")
        names = sorted(os.listdir(place)) if place.is_dir() else []
        for name in names:
            tool = str(place / name)
            if _TOOL.fullmatch(name) and shutil.which(tool) and shutil.which(_beside(tool)):
                said = subprocess.run([tool, "--version"], check=False, capture_output=True)
                version = _VERSION.search(said.stdout.decode(errors="replace"))
                if version:
                    found.setdefault(tool, int(version[1]))
    return max(found.items(), key=lambda item: item[1], default=None)


def _beside(tool: str) -> str:
    """Returns the path of llvm-mc of the same LLVM."""
    folder, name = os.path.split(tool)
    return os.path.join(folder, name.replace("llvm-mca", "llvm-mc"))


def _run(
    command: Sequence[str], text: str, *, may_warn: bool = False
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True)
    if done.returncode and not (may_warn and _UNKNOWN.search(done.stderr)):
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[0]
        raise TargetError(f"{os.path.basename(command[0])} cannot read the code: {reason}")
    return done
