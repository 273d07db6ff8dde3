"""
C{smtpreuse conf}: shows the parameters in force and where they were set, in the manner of postconf(1).

Values are shown with their C{$names} replaced, as C{postconf -x} does: they are what the service works with.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from smtpreuse.cli.options import settings_from
from smtpreuse.config.load import default_settings
from smtpreuse.config.parameters import BY_NAME, PARAMETERS, Parameter
from smtpreuse.config.reading import DEFAULT
from smtpreuse.config.settings import Settings


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("conf", parents=[common], help="show or check the configuration")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-n", dest="set_only", action="store_true", help="show only what is set")
    which.add_argument("-d", dest="defaults", action="store_true", help="show the defaults, whatever is set")
    which.add_argument("--check", action="store_true", help="show nothing but what is wrong")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parameters to show; all of them without one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    @return: 0, or 1 when a name was given that is no parameter.
    @raise ConfigurationError: when the configuration cannot be used.
    """
    if arguments.check:
        # Not at the top: showing parameters does without Twisted, which comes with this and takes longer than all else.
        from smtpreuse.roles.configuration import startable_settings

        startable_settings(arguments.config, arguments.overrides, keys=True)
        print('{"configuration":"ok"}' if arguments.json else "configuration ok")
        return 0
    settings = default_settings() if arguments.defaults else settings_from(arguments)
    unknown = [name for name in arguments.names if name not in BY_NAME]
    known = [BY_NAME[name] for name in arguments.names if name in BY_NAME] if arguments.names else PARAMETERS
    for parameter in known:
        if arguments.set_only and settings.source(parameter.name) == DEFAULT:
            continue
        print(_object(parameter, settings) if arguments.json else _line(parameter, settings, arguments.defaults))
    for name in unknown:
        print(f"smtpreuse conf: unknown parameter: {name}", file=sys.stderr)
    return 1 if unknown else 0


def _line(parameter: Parameter, settings: Settings, defaults: bool) -> str:
    text = parameter.default if defaults and not parameter.computed else settings.text(parameter.name)
    return f"{parameter.name} = {text}".rstrip()


def _object(parameter: Parameter, settings: Settings) -> str:
    shown = {
        "name": parameter.name,
        "value": settings.text(parameter.name),
        "default": None if parameter.computed else parameter.default,
        "source": settings.source(parameter.name),
    }
    return msgspec.json.encode(shown).decode()
