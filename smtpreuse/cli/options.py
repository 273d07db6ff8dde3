"""
Options that every subcommand has, and the settings that follow from them.
"""

from __future__ import annotations

import argparse
import os

from smtpreuse.config.kinds import LONGEST
from smtpreuse.config.load import control_socket_of, read_settings
from smtpreuse.config.settings import Settings


def common_options() -> argparse.ArgumentParser:
    """A parser to be the parent of each subcommand's."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        help="the main.cf to read (default: $SMTPREUSE_CONFIG, /etc/smtpreuse/main.cf, built-in defaults)",
    )
    common.add_argument(
        "-o", dest="overrides", metavar="name=value", action="append", default=[], help="set a parameter (repeatable)"
    )
    common.add_argument("--json", action="store_true", help="write JSON, one object per line")
    return common


def socket_from(arguments: argparse.Namespace) -> str:
    """The control socket that the common options name, whatever else is wrong with the configuration."""
    return control_socket_of(arguments.config, arguments.overrides)


def check_given(arguments: argparse.Namespace) -> None:
    """
    For a subcommand that works without settings: what C{--config} and C{-o} name has to be right all the same.

    @raise ConfigurationError: with all errors at once.
    """
    if arguments.config or arguments.overrides:
        read_settings(arguments.config or os.devnull, arguments.overrides)


def positive(text: str) -> int:
    """A number of at least 1, from the command line."""
    return _at_least(1, int(text))


def natural(text: str) -> int:
    """A number of at least 0, from the command line."""
    return _at_least(0, int(text))


def seconds(text: str) -> float:
    """A time span, from the command line."""
    span = float(text)
    if not 0 <= span <= LONGEST:
        raise argparse.ArgumentTypeError(f"it must be from 0 to {LONGEST:.0f}")
    return span


def _at_least(least: int, number: int) -> int:
    if number < least:
        raise argparse.ArgumentTypeError(f"it must be at least {least}")
    return number


def settings_from(arguments: argparse.Namespace) -> Settings:
    """
    The settings that the common options name.

    @raise ConfigurationError: with all errors at once.
    """
    return read_settings(arguments.config, arguments.overrides)
