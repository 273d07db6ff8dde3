"""
C{twistd smtpreuse}: its options, and the service they make.
"""

from __future__ import annotations

import os
import sys
from typing import ClassVar, TextIO

from twisted.application.service import IService
from twisted.logger import globalLogPublisher, jsonFileLogObserver
from twisted.python import usage

from smtpreuse.config.settings import Settings
from smtpreuse.errors import ConfigurationError
from smtpreuse.roles.descriptors import hold_standard_streams


class Options(usage.Options):
    """What may stand behind C{twistd smtpreuse}."""

    synopsis = "[--config FILE] [--listen ENDPOINT]... [-o name=value]... [--json-log FILE|-] [--check]"
    optFlags: ClassVar = [
        ["check", None, "Check the configuration, say 'configuration ok', and end."],
        ["end-with-stdin", None, "End when standard input does: a pipe from a program that is to take us with it."],
    ]  # fmt: skip
    optParameters: ClassVar = [
        ["config", "c", None, "The main.cf (default: $SMTPREUSE_CONFIG, /etc/smtpreuse/main.cf, the defaults)."],
        ["json-log", None, None, "Write events to this file, one JSON object per line; - for standard output."],
    ]  # fmt: skip

    def __init__(self) -> None:
        # No reactor is there yet; it would take a free number for its own.
        hold_standard_streams()
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated in Twisted
        # A service that reads its configuration again may have gone elsewhere by then (twistd --rundir).
        self._current = os.getcwd()
        self.overrides: list[str] = []
        self.listen: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """Take mail here (tcp:2525:interface=127.0.0.1). Repeatable; replaces the parameter listen."""
        self.listen.append(endpoint)

    def opt_override(self, assignment: str) -> None:
        """Set a parameter: name=value. Repeatable; goes before main.cf."""
        self.overrides.append(assignment)

    opt_o = opt_override

    def settings(self) -> Settings:
        """
        The configuration these options lead to.

        @raise ConfigurationError: with all that is wrong with it.
        """
        overrides = list(self.overrides)
        if self.listen:
            overrides.append(f"listen={' '.join(self.listen)}")
        # Not before the options were read: with these comes most of the service.
        from smtpreuse.roles.configuration import startable_settings

        return startable_settings(self["config"], overrides, self._current, keys=bool(self["check"]))


def makeService(options: Options) -> IService:
    """Twisted's name: the service, or the end of the process with one line per configuration error."""
    try:
        settings = options.settings()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    if options["check"]:
        print("configuration ok", file=sys.__stdout__, flush=True)
        raise SystemExit(0)
    if options["json-log"]:
        globalLogPublisher.addObserver(jsonFileLogObserver(_opened(options["json-log"]), recordSeparator=""))
    from smtpreuse.roles.lifecycle import DeliveryService
    from smtpreuse.roles.owner import Owner

    # The parent is twistd's own options.
    twistd = options.parent or {"nodaemon": True, "uid": None, "gid": None}
    return DeliveryService(
        settings, options.settings, daemonized=not twistd["nodaemon"], tethered=bool(options["end-with-stdin"]),
        owner=Owner.chosen(twistd["uid"], twistd["gid"]),
    )  # fmt: skip


def _opened(path: str) -> TextIO:
    if path == "-":
        assert sys.__stdout__ is not None, "twistd has a standard output"
        return sys.__stdout__
    try:
        return open(path, "a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise SystemExit(f"--json-log: {path}: cannot be opened ({error.strerror})") from None
