"""
The configuration as the rest of the house sees it: one frozen value; and where it is read from.

Knows what a parameter's text may be only through the table of parameters. Source of the search order and of the form of
errors: C{docs/parameters.md}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import field, frozen

from smtpreuse.config.checks import check
from smtpreuse.config.maincf import COMMAND_LINE, Assignment, parse, parse_override
from smtpreuse.config.reading import DEFAULT, Reading, read
from smtpreuse.config.tables import Networks, Tables
from smtpreuse.errors import BadValue, ConfigurationError
from smtpreuse.model.nexthop import Endpoint, Nexthop

SYSTEM_FILE = "/etc/smtpreuse/main.cf"
"""Read when neither an argument nor C{$SMTPREUSE_CONFIG} names a file, and it is there."""


@frozen(kw_only=True)
class Settings:
    """
    One attribute for each parameter, under the parameter's name: durations are seconds, sizes octets, paths absolute.

    What each means is in L{PARAMETERS<smtpreuse.config.parameters.PARAMETERS>}. The three attributes at the end are not
    compared: two settings are equal when every parameter has the same value.

    @ivar file: the C{main.cf} that was read, or L{None} where there was none.
    """

    myhostname: str
    mydomain: str
    myorigin: str
    append_at_myorigin: bool
    listen: tuple[str, ...]
    mynetworks: Networks
    message_size_limit: int
    smtpd_recipient_limit: int
    smtpd_timeout: float
    smtpd_client_connection_count_limit: int
    smtpd_client_event_limit_exceptions: Networks
    queue_directory: str
    queue_minfree: int
    content_cache_size: int
    maximal_queue_lifetime: float
    bounce_queue_lifetime: float
    soft_bounce: bool
    relayhost: Nexthop | None
    transport_maps: Tables
    smtp_fallback_relay: tuple[Nexthop, ...]
    smtp_host_lookup: tuple[str, ...]
    smtp_dns_support_level: str
    dns_servers: tuple[Endpoint, ...]
    inet_protocols: tuple[str, ...]
    smtp_address_preference: str
    smtp_mx_address_limit: int
    smtp_mx_session_limit: int
    smtp_tls_security_level: str
    smtp_tls_policy_maps: Tables
    smtp_tls_loglevel: int
    smtp_tls_connection_reuse: bool
    smtp_connection_cache_on_demand: bool
    smtp_connection_cache_destinations: tuple[str, ...]
    smtp_connection_cache_time_limit: float
    smtp_connection_reuse_time_limit: float
    smtp_connection_reuse_count_limit: int
    session_limit: int
    resting_session_limit: int
    resting_session_limit_per_key: int
    smtp_bind_address: str
    smtp_bind_address6: str
    smtp_helo_name: str
    smtp_connect_timeout: float
    smtp_helo_timeout: float
    smtp_starttls_timeout: float
    smtp_mail_timeout: float
    smtp_rcpt_timeout: float
    smtp_data_init_timeout: float
    smtp_data_xfer_timeout: float
    smtp_data_done_timeout: float
    smtp_rset_timeout: float
    smtp_quit_timeout: float
    smtp_per_request_deadline: bool
    smtp_skip_5xx_greeting: bool
    smtp_line_length_limit: int
    smtp_discard_ehlo_keywords: tuple[str, ...]
    default_destination_concurrency_limit: int
    initial_destination_concurrency: int
    default_destination_recipient_limit: int
    default_destination_rate_delay: float
    minimal_backoff_time: float
    maximal_backoff_time: float
    qmgr_message_active_limit: int
    maillog_file: str
    maillog_time: str
    control_socket: str
    shutdown_timeout: float
    file: str | None = field(default=None, eq=False)
    _texts: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    _origins: Mapping[str, str] = field(factory=dict, eq=False, repr=False)

    def source(self, name: str) -> str:
        """Where a parameter's value was set: C{FILE:LINE}, C{command line} or C{default}."""
        return self._origins.get(name, DEFAULT)

    def text(self, name: str) -> str:
        """A parameter's value as C{main.cf} would have it, C{$names} replaced and file names made absolute."""
        return self._texts[name]


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
) -> Settings:
    """
    Read the configuration.

    @param path: a C{main.cf}; L{None} for C{$SMTPREUSE_CONFIG}, then C{/etc/smtpreuse/main.cf}, then defaults alone.
    @param overrides: C{name=value} each, which go before the file.
    @param checks: more to look at than a single parameter shows, by parts that this one does not know.
    @raise ConfigurationError: with all errors at once.
    """
    file = path or environ.get("SMTPREUSE_CONFIG") or (SYSTEM_FILE if os.path.exists(SYSTEM_FILE) else None)
    assignments, problems = _read_file(file) if file else ([], [])
    for override in overrides:
        try:
            assignments.append(parse_override(override))
        except BadValue as error:
            problems.append(f"{COMMAND_LINE}: {error}")
    current = os.getcwd()
    directory = os.path.dirname(os.path.join(current, file)) if file else current
    reading = read(assignments, directory=directory, current=current, system_name=_system_name)
    return _settled(reading, file, problems, checks)


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


def _read_file(path: str) -> tuple[list[Assignment], list[str]]:
    try:
        with open(path, encoding="utf-8") as file:
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
