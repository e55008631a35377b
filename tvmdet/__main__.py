"""``python -m tvmdet``: the command line."""

import sys

from tvmdet.cli import main

if __name__ == "__main__":
    sys.exit(main())
