"""``python -m tvmdet.board [DIR]``: makes the board kit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tvmdet.board.kit import SERVER, default_kit, make_kit
from tvmdet.errors import TvmdetError


def main() -> int:
    """Makes the kit and says what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m tvmdet.board", description=make_kit.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Makes the kit that an aarch64 board needs: TVM's runtime, an RPC server."
    parser.add_argument("folder", nargs="?", type=Path, help=f"by default {default_kit()}")
    try:
        kit = make_kit(parser.parse_args().folder, progress=lambda line: print(line, flush=True))
    except TvmdetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"made {kit}")
    print(f"on the board: ./{SERVER} --host 0.0.0.0 --port 9090 --key my-board /tmp (docs/arm.md)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
