"""Which tests share what takes long to make, and so stay in one process."""

from __future__ import annotations

import re

__all__ = ["shared_scope"]


def shared_scope(nodeid: str) -> str:
    """Returns what a test shares with others: a network of the zoo, a file, or a folder."""
    path, _, name = nodeid.partition("::")
    network = re.fullmatch(r"test_case\[(.+)-(script|dynamo)\d+\]", name)
    if network:
        return f"{path} {network[1]}"
    folder = path.rpartition("/")[0]
    return folder if folder.endswith("end_to_end") else path
