"""
Where the configuration is read from, and all that may be wrong with it at once.

Knows what a parameter's text may be only through the table of parameters. Source of the search order and of the form of
errors: C{docs/parameters.md}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from smtpreuse.config.checks import check
from smtpreuse.config.maincf import COMMAND_LINE, Assignment, parse, parse_override
from smtpreuse.config.reading import Reading, read
from smtpreuse.config.settings import Settings
from smtpreuse.errors import BadValue, ConfigurationError

SYSTEM_FILE = "/etc/smtpreuse/main.cf"
"""Read when neither an argument nor C{$SMTPREUSE_CONFIG} names a file, and it is there."""

Check = Callable[[Settings], Iterable[str]]
"""Looks at settings as a whole; each line it gives is a problem, in the form that all have."""

# What the table of parameters gives is known by name at run time only; a test compares the two.
_make: Callable[..., Settings] = Settings


def read_settings(
    path: str | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    checks: Sequence[Check] = (),
    current: str | None = None,
) -> Settings:
    """
    Read the configuration.

    @param path: a C{main.cf}; L{None} for C{$SMTPREUSE_CONFIG}, then C{/etc/smtpreuse/main.cf}, then defaults alone.
    @param overrides: C{name=value} each, which go before the file.
    @param checks: more to look at than a single parameter shows, by parts that this one does not know.
    @param current: what paths given here are relative to; L{None} for the current directory.
    @raise ConfigurationError: with all errors at once.
    """
    reading, file, problems = _read(path, overrides, environ, current or os.getcwd())
    return _settled(reading, file, problems, checks)


def control_socket_of(
    path: str | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> str:
    """
    Where a service is reached, whatever else is wrong with a configuration that it has yet to read; the arguments are
    those of L{read_settings}. What cannot be read counts as not set.
    """
    reading, _, _ = _read(path, overrides, environ, os.getcwd())
    return str(reading.values["control_socket"])


def _read(
    path: str | None, overrides: Sequence[str], environ: Mapping[str, str], current: str
) -> tuple[Reading, str | None, list[str]]:
    """What was understood, the file it is from, and what was wrong besides."""
    file = path or environ.get("SMTPREUSE_CONFIG") or (SYSTEM_FILE if os.path.exists(SYSTEM_FILE) else None)
    assignments, problems = _read_file(file, current) if file else ([], [])
    for override in overrides:
        try:
            assignments.append(parse_override(override))
        except BadValue as error:
            problems.append(f"{COMMAND_LINE}: {error}")
    directory = os.path.dirname(os.path.join(current, file)) if file else current
    return read(assignments, directory=directory, current=current, system_name=_system_name), file, problems


def settings_of(**values: str) -> Settings:
    """
    Settings without a file and without the system's name, for tests: C{myhostname} is C{host.example.com}.

    @param values: texts of parameters, as C{main.cf} would have them.
    @raise ConfigurationError: with all errors at once.
    """
    assignments = [Assignment(name=name, value=value, origin=COMMAND_LINE) for name, value in values.items()]
    current = os.getcwd()
    reading = read(assignments, directory=current, current=current, system_name=lambda: "host.example.com")
    return _settled(reading, None, [], ())


def default_settings() -> Settings:
    """What is in force where nothing is set."""
    current = os.getcwd()
    return _settled(read([], directory=current, current=current, system_name=_system_name), None, [], ())


def _settled(reading: Reading, file: str | None, problems: list[str], checks: Sequence[Check]) -> Settings:
    settings = _make(**reading.values, file=file, texts=reading.texts, origins=reading.origins)
    problems = [*problems, *reading.problems, *check(settings, reading.wrong)]
    for look in checks:
        problems.extend(look(settings))
    if problems:
        raise ConfigurationError(problems)
    return settings


def _read_file(path: str, current: str) -> tuple[list[Assignment], list[str]]:
    try:
        with open(os.path.join(current, path), encoding="utf-8-sig") as file:
            return parse(file.read(), path)
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror})"]
    except UnicodeDecodeError as error:
        return [], [f"{path}: is not UTF-8 (octet {error.start})"]


def _system_name() -> str:
    """
    The name of this host, with its domain where the system knows it. The resolver is asked for it only where the plain
    name has no domain: that question may take seconds.
    """
    name = socket.gethostname()
    if "." in name:
        return name
    full = socket.getfqdn(name)
    return full if full.startswith(f"{name}.") else name
