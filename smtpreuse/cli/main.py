"""
The entry of the C{smtpreuse} command: finds the subcommand, and turns its end into an exit status.

Only the module of the subcommand asked for is imported: most of them need neither Twisted nor TLS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from smtpreuse.cli.options import common_options
from smtpreuse.errors import ConfigurationError, SmtpreuseError
from smtpreuse.roles.descriptors import hold_standard_streams

_MODULES = {
    "conf": "smtpreuse.cli.conf",
    "demo": "smtpreuse.cli.demo",
    "drain": "smtpreuse.cli.service",
    "queue": "smtpreuse.cli.queue",
    "reload": "smtpreuse.cli.service",
    "sessions": "smtpreuse.cli.status",
    "sink": "smtpreuse.cli.sink",
    "source": "smtpreuse.cli.source",
    "status": "smtpreuse.cli.status",
}

FAILED = 1
BAD_CONFIGURATION = 78


class _Subcommand(Protocol):
    """What a module of a subcommand has."""

    def add(
        self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
    ) -> None:
        """Add the subcommand, with a default C{run} that takes the arguments and returns the exit status."""


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    """
    @param wanted: the one subcommand to prepare; L{None} for all of them.
    """
    parser = argparse.ArgumentParser(prog="smtpreuse", description="Deliver many messages over each TLS connection.")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    common = common_options()
    for name in dict.fromkeys([_MODULES[wanted]] if wanted else _MODULES.values()):
        module: _Subcommand = import_module(name)
        module.add(subparsers, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one subcommand.

    @param argv: without the program's name; L{None} for those of the process.
    @return: the exit status.
    @raise SystemExit: with status 2 for a wrong usage, 0 after help.
    """
    # What is printed where standard output is closed fails; it never goes to a file of ours.
    hold_standard_streams(os.O_RDONLY)
    words = sys.argv[1:] if argv is None else list(argv)
    wanted = words[0] if words and words[0] in _MODULES else None
    arguments = _parser(wanted).parse_args(words)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except ConfigurationError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return BAD_CONFIGURATION
    except SmtpreuseError as error:
        print(f"smtpreuse: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"smtpreuse: {error}", file=sys.stderr)
        # The reader went away, as head does, or the disk is full: nothing more is to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
