"""The runtimes that tvmdet is compared with, one file each, and the server that runs them."""

from tvmdet.report.rivals.catalogue import RIVALS, TVMDET, Rival, find_rivals

__all__ = ["RIVALS", "TVMDET", "Rival", "find_rivals"]
