"""
What is wrong with settings that are each right by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set

from smtpreuse.config.settings import Settings
from smtpreuse.errors import AddressError
from smtpreuse.model.nexthop import Nexthop

SOCKET_PATH_LIMIT = 107
"""Octets of a UNIX socket's path: C{sun_path} has 108 on Linux, one for the final NUL (unix(7))."""

_TRANSPORTS = ("smtp", "discard", "error", "hold")


def check(settings: Settings, wrong: Set[str]) -> Iterator[str]:
    """
    @param wrong: names of parameters that have a problem already: nothing is concluded from their values.
    @return: one line for each problem.
    """
    if not wrong & {"control_socket", "queue_directory"}:
        yield from _control_socket(settings)
    for name in ("control_socket", "maillog_file"):
        if not wrong & {name, "queue_directory"}:
            yield from _beside_the_queue(settings, name)
    if not wrong & {"minimal_backoff_time", "maximal_backoff_time"}:
        yield from _backoff(settings)
    if not wrong & {"smtpd_tls_security_level", "smtpd_tls_chain_files", "smtpd_tls_cert_file"}:
        yield from _certificate(settings)
    if "transport_maps" not in wrong:
        yield from _transports(settings)


def _problem(settings: Settings, name: str, what: str, allowed: str) -> str:
    return f"{settings.source(name)}: {name}: {what} (allowed: {allowed})"


def _control_socket(settings: Settings) -> Iterator[str]:
    octets = len(settings.control_socket.encode())
    if octets > SOCKET_PATH_LIMIT:
        what = f"a path of {octets} octets is too long for a UNIX socket: {settings.control_socket}"
        yield _problem(settings, "control_socket", what, f"at most {SOCKET_PATH_LIMIT} octets")


def _beside_the_queue(settings: Settings, name: str) -> Iterator[str]:
    """A file that would take the place of one of the queue's, or be taken for one."""
    path: str = getattr(settings, name)
    directory = os.path.realpath(settings.queue_directory)
    within = os.path.relpath(os.path.realpath(path), directory) if path else ""
    if within.partition("/")[0] in ("lock", "content") or within.startswith("queue.db"):
        yield _problem(settings, name, f"a place of the queue's own: {path}", "any other")


def _backoff(settings: Settings) -> Iterator[str]:
    if settings.minimal_backoff_time > settings.maximal_backoff_time:
        name = "minimal_backoff_time"
        what = f"more than maximal_backoff_time: {settings.text(name)}"
        yield _problem(settings, name, what, f"at most {settings.text('maximal_backoff_time')}")


def _certificate(settings: Settings) -> Iterator[str]:
    """TLS is not offered with nothing to show; Postfix goes on without it, and its clients' mail in plaintext."""
    name = "smtpd_tls_security_level"
    level = settings.smtpd_tls_security_level
    if level != "none" and not (settings.smtpd_tls_chain_files or settings.smtpd_tls_cert_file):
        what = f"without a certificate in smtpd_tls_chain_files or smtpd_tls_cert_file: {level}"
        yield _problem(settings, name, what, "none")


def _transports(settings: Settings) -> Iterator[str]:
    for table, key, value in settings.transport_maps.items():
        fault = transport_fault(value)
        if fault:
            what = f"{fault}, in {table} for {key or 'every key'}: {value}"
            allowed = "smtp:nexthop, discard:, error:text, hold:text"
            yield _problem(settings, "transport_maps", what, allowed)


def transport_fault(value: str) -> str | None:
    """What is wrong with the right-hand side of a transport table; L{None} when it is fine (transport(5))."""
    transport, colon, nexthop = value.partition(":")
    if not colon or transport not in _TRANSPORTS:
        return "not a transport that works"
    if transport == "smtp" and nexthop:
        try:
            Nexthop.parse(nexthop)
        except AddressError as error:
            return str(error)
    return None
