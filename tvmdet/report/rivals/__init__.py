"""The runtimes that tvmdet is compared with, one file each, and the server that runs them."""

from tvmdet.report.rivals.catalogue import PRECISIONS, RIVALS, TVMDET, Rival, find_rivals

__all__ = ["PRECISIONS", "RIVALS", "TVMDET", "Rival", "find_rivals"]
