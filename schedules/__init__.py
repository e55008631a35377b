"""Schedule templates: one operator pattern per file, one folder per target family."""

from __future__ import annotations

import functools

if __name__ == "schedules":
    raise ImportError("import tvmdet.schedules: a second copy would split the templates in two")

from tvm import tirx
from tvmdet.schedules.arm.templates import ARM_TEMPLATES
from tvmdet.schedules.base import Decision, Template, Workload, fingerprint
from tvmdet.schedules.common.as_is import AsIs
from tvmdet.schedules.common.elementwise import Elementwise
from tvmdet.schedules.common.grid_sample import GridSample
from tvmdet.schedules.common.reduction import Reduction
from tvmdet.schedules.common.rows import Rows
from tvmdet.schedules.cuda.templates import CUDA_TEMPLATES
from tvmdet.schedules.x86.templates import X86_TEMPLATES
from tvmdet.targets import Target

from tvmdet.errors import TuningError

__all__ = ["Decision", "Template", "Workload", "find", "fingerprint", "get_template", "templates"]

_COMMON: tuple[Template, ...] = (GridSample(), Rows(), Elementwise(), Reduction(), AsIs())
_BY_FAMILY: dict[str, tuple[Template, ...]] = {
    "x86": X86_TEMPLATES + _COMMON,
    "arm": ARM_TEMPLATES + _COMMON,
    "cuda": CUDA_TEMPLATES,
}
"""Of other families, what is common to CPUs."""


def templates(target: Target) -> tuple[Template, ...]:
    """Returns the templates for a target in the order in which they are asked."""
    return _BY_FAMILY.get(target.family, _COMMON)


def find(func: tirx.PrimFunc, target: Target) -> tuple[Template, Workload]:
    """Returns the first template that schedules ``func``, with what it read in it."""
    for template in templates(target):
        workload = template.match(func, target)
        if workload is not None:
            return template, workload
    raise AssertionError("the last template matches everything")


@functools.cache
def get_template(name: str) -> Template:
    """Returns the template of that name.

    Raises:
        TuningError: There is none.
    """
    every = {t.name: t for group in (*_BY_FAMILY.values(), _COMMON) for t in group}
    if name not in every:
        raise TuningError(f"no template is called {name!r}; there are {', '.join(sorted(every))}")
    return every[name]
