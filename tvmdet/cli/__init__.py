"""The command line: one file per verb, which parses, calls one function and prints."""

from tvmdet.cli.app import main

__all__ = ["main"]
