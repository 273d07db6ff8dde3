"""
The configuration as the rest of the house sees it: one frozen value.

How it is read is C{config.load}'s; what each parameter means, C{config.parameters}'.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from smtpreuse.config.reading import DEFAULT
from smtpreuse.config.tables import Networks, Tables
from smtpreuse.model.nexthop import Endpoint, Nexthop


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
    smtpd_junk_command_limit: int
    smtpd_client_connection_count_limit: int
    smtpd_client_event_limit_exceptions: Networks
    smtpd_tls_security_level: str
    smtpd_tls_chain_files: tuple[str, ...]
    smtpd_tls_cert_file: str
    smtpd_tls_key_file: str
    smtpd_tls_loglevel: int
    smtpd_starttls_timeout: float
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
    smtp_processes: int | None
    tlsproxy_processes: int | None
    scache_processes: str
    tlsproxy_session_limit: int
    max_idle: float
    max_use: int
    role_watchdog_timeout: float
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
