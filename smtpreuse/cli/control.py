"""
The control socket from its client's side: one object per line, page by page.

It knows no command.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from smtpreuse.cli.options import settings_from, socket_from
from smtpreuse.control.objects import Changed, Refusal, parsed
from smtpreuse.errors import SmtpreuseError

# One page of a slow disk, or the deletion of a large queue; the service answers in milliseconds otherwise.
_TIMEOUT = 120.0
_NEXT = re.compile(r'<([^>]*)>; rel="next"')

Shown = TypeVar("Shown")


class ServiceUnreachable(SmtpreuseError):  # named as SessionLost is: a state, and no mistake
    """Nobody answers on the control socket."""


class ServiceRefused(SmtpreuseError):
    """
    The service answered that it will not do it.

    @ivar status: of HTTP: 404 where what was asked about is not there.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def connected(path: str) -> socket.socket:
    """
    A connection to the UNIX socket at this path.

    @raise OSError: when nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, opener: Callable[[str], socket.socket]) -> None:
        super().__init__("localhost")
        self._path = path
        self._opener = opener

    def connect(self) -> None:
        self.sock = self._opener(self._path)


class ControlSocket:
    """Asks a running service."""

    def __init__(self, path: str, opener: Callable[[str], socket.socket] = connected) -> None:
        """
        @param path: of the UNIX socket.
        @param opener: makes a connection to it.
        """
        self._path = path
        self._opener = opener

    def lines(self, target: str) -> Iterator[str]:
        """
        The objects at a path as lines of JSON, read page by page as they are asked for.

        @raise ServiceUnreachable: when nobody answers.
        @raise ServiceRefused: when the service says no.
        """
        following: str | None = target
        while following is not None:
            page, following = self._ask("GET", following, None)
            yield from page

    def objects(self, target: str, kind: type[Shown]) -> Iterator[Shown]:
        """The same as values of C{smtpreuse.control.objects}."""
        for line in self.lines(target):
            yield parsed(line, kind)

    def post(self, target: str, form: Sequence[tuple[str, str]] = ()) -> Changed:
        """
        Have something done.

        @raise ServiceUnreachable: when nobody answers.
        @raise ServiceRefused: when the service says no.
        """
        return parsed(self.told(target, form), Changed)

    def told(self, target: str, form: Sequence[tuple[str, str]] = ()) -> str:
        """The same; what came of it as a line of JSON."""
        page, _ = self._ask("POST", target, urlencode(form))
        return page[0]

    def _ask(self, method: str, target: str, form: str | None) -> tuple[list[str], str | None]:
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        # A connection for each request: a reader may rest at a page for longer than the service waits (less does).
        connection = _Connection(self._path, self._opener)
        try:
            connection.request(method, target, form, headers)
            response = connection.getresponse()
            page = response.read().decode().splitlines()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachable(f"the service does not answer on {self._path}: {reason}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise ServiceRefused(response.status, parsed(page[0], Refusal).error)
        link = _NEXT.match(response.getheader("Link", ""))
        return page, link[1] if link else None


def asked(arguments: argparse.Namespace, ask: Callable[[ControlSocket], int], *, strict: bool = True) -> int:
    """
    Ask the service that the configuration names.

    @param ask: is given its control socket, and returns the exit status.
    @param strict: whether the configuration must be good all over, and not only where it names that socket.
    @return: the exit status; 69 when nobody answers, which is told on standard error.
    @raise ConfigurationError: when the configuration cannot be used.
    @raise ServiceRefused: when the service says no.
    """
    service = ControlSocket(settings_from(arguments).control_socket if strict else socket_from(arguments))
    try:
        return ask(service)
    except ServiceUnreachable as error:
        print(f"smtpreuse: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
