"""One side from process start to its first detections, and repeated calls; prints one JSON line.

Usage: first_answer.py tvmdet|onnxruntime nudenet|layout MODEL IMAGE THREADS START
where START is ``time.time()`` of the moment the process was asked for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def _peak_rss_mb() -> float:
    """Returns this process's peak; ru_maxrss would start from that of the parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel reports no VmHWM")


def main() -> None:
    """Measures one side."""
    side, name, model, picture, threads, start = sys.argv[1:]
    import cv2

    image = cv2.imread(picture)
    before = time.time()
    if side == "tvmdet":
        import tvmdet

        detector = tvmdet.load(model, threads=int(threads))
        loaded = time.time()
        found = len(detector.detect(image))
    else:
        import rival

        detect = rival.RIVALS[name](Path(model), int(threads))
        loaded = time.time()
        found = len(detect(image)[1])
    answered = time.time()
    print(
        json.dumps(
            {
                "found": found,
                "import_and_load_s": loaded - before,
                "first_answer_s": answered - float(start),
                "peak_rss_mb": _peak_rss_mb(),
            }
        )
    )


if __name__ == "__main__":
    main()
