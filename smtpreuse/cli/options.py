"""
Options that every subcommand has, and the settings that follow from them.
"""

from __future__ import annotations

import argparse

from smtpreuse.config.load import read_settings
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


def settings_from(arguments: argparse.Namespace) -> Settings:
    """
    The settings that the common options name.

    @raise ConfigurationError: with all errors at once.
    """
    return read_settings(arguments.config, arguments.overrides)
