"""
The table of parameters: every one that works, and nothing else about them anywhere.

C{conf/main.cf}, C{docs/parameters.md} and C{smtpreuse conf} come from it. Names, meanings and defaults are those of
Postfix at compatibility level 3.11 wherever Postfix has the parameter; C{docs/differences.md} lists where a default is
ours, and why.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.config import kinds
from smtpreuse.config.kinds import Kind


@frozen
class Parameter:
    """
    @ivar default: as C{main.cf} would have it; may contain C{$names}.
    @ivar meaning: one line.
    @ivar section: the heading it stands under in C{conf/main.cf}.
    @ivar computed: where the default comes from when it is found out at start; else empty.
    @ivar at_start: whether a change takes effect at the next start only, and not at a reload.
    """

    section: str
    name: str
    kind: Kind
    default: str
    meaning: str
    computed: str = ""
    at_start: bool = False

    @property
    def shown_default(self) -> str:
        """The default for people: its text, or where it comes from."""
        return f"({self.computed})" if self.computed else self.default


_NAMES = "Names"
_QUEUE = "Queue"
_INTAKE = "Taking mail"
_ROUTING = "Where mail goes"
_DNS = "Names and addresses of servers"
_TLS = "TLS"
_REUSE = "Connection reuse"
_SMTP = "Talking to servers"
_SCHEDULE = "When mail goes, and how much of it at once"
_OPERATING = "Operating"
_PROCESSES = "Processes"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(_NAMES, "myhostname", kinds.DOMAIN, "", "The full name of this host.", "the system's name"),
    Parameter(
        _NAMES, "mydomain", kinds.DOMAIN, "", "The domain of this host.", "the rest of $myhostname, or localdomain"
    ),
    Parameter(_NAMES, "myorigin", kinds.ORIGIN, "$myhostname", "The domain that addresses without one get."),
    Parameter(
        _NAMES, "append_at_myorigin", kinds.YES_NO, "yes", "Append @$myorigin to addresses that have no domain."
    ),
    Parameter(
        _INTAKE, "listen", kinds.LISTEN, "tcp:2525:interface=127.0.0.1",
        "Where to take mail: Twisted's server endpoints, separated by white space.", at_start=True,
    ),
    Parameter(
        _INTAKE, "mynetworks", kinds.NETWORKS, "127.0.0.0/8 [::1]/128",
        "Clients that may relay; those on UNIX sockets always may.",
    ),
    Parameter(
        _INTAKE, "message_size_limit", kinds.size(), "10240000", "The largest message that is taken; 0: no limit."
    ),
    Parameter(
        _INTAKE, "smtpd_recipient_limit", kinds.number(1), "1000", "The most recipients of one message that are taken."
    ),
    Parameter(_INTAKE, "smtpd_timeout", kinds.duration(), "300s", "How long to wait for a client."),
    Parameter(
        _INTAKE, "smtpd_junk_command_limit", kinds.number(0), "100",
        "How many NOOP, VRFY, RSET, HELO and EHLO a client may send until its next message; more are errors.",
    ),
    Parameter(
        _INTAKE, "smtpd_client_connection_count_limit", kinds.number(0), "50",
        "The most connections of one client at a time; 0: no limit.",
    ),
    Parameter(
        _INTAKE, "smtpd_client_event_limit_exceptions", kinds.NETWORKS, "$mynetworks",
        "Clients that smtpd_client_connection_count_limit does not bind.",
    ),
    Parameter(
        _INTAKE, "smtpd_tls_security_level", kinds.choice("none", "may", "encrypt", empty="none"), "",
        "Whether clients may use STARTTLS, or must before they send mail.",
    ),
    Parameter(
        _INTAKE, "smtpd_tls_chain_files", kinds.PATHS, "",
        "Private keys, each followed by its certificate and those of its issuers; go before the next two.",
    ),
    Parameter(
        _INTAKE, "smtpd_tls_cert_file", kinds.PATH_OR_EMPTY, "",
        "The certificate that clients are shown, followed by those of its issuers.",
    ),
    Parameter(
        _INTAKE, "smtpd_tls_key_file", kinds.PATH_OR_EMPTY, "$smtpd_tls_cert_file",
        "The private key of smtpd_tls_cert_file, not encrypted.",
    ),
    Parameter(
        _INTAKE, "smtpd_tls_loglevel", kinds.number(0, 4), "0",
        "1: one line for each TLS session of a client; 2 to 4 say no more; 0: none.",
    ),
    Parameter(
        _INTAKE, "smtpd_starttls_timeout", kinds.duration(), "300s", "How long a client's handshake may take."
    ),
    Parameter(
        _QUEUE, "queue_directory", kinds.PATH, "/var/spool/smtpreuse", "Where the queue is; it serves one service.",
        at_start=True,
    ),
    Parameter(
        _QUEUE, "queue_minfree", kinds.size(), "0",
        "Free space below which no mail is taken; at least 1.5 x message_size_limit is asked for anyway.",
    ),
    Parameter(
        _QUEUE, "content_cache_size", kinds.size(), "16M",
        "How much fresh content stays in memory until its first delivery attempt.",
    ),
    Parameter(
        _QUEUE, "maximal_queue_lifetime", kinds.duration("d", zero=True), "5d",
        "How long mail is tried before it is returned; 0: one attempt.",
    ),
    Parameter(
        _QUEUE, "bounce_queue_lifetime", kinds.duration("d", zero=True), "5d",
        "How long returned mail is tried before it is dropped; 0: one attempt.",
    ),
    Parameter(_QUEUE, "soft_bounce", kinds.YES_NO, "no", "Defer where mail would bounce: for trying a configuration."),
    Parameter(
        _ROUTING, "relayhost", kinds.NEXTHOP, "",
        "The server all mail goes to that transport_maps does not send elsewhere; empty: to each domain's MX.",
    ),
    Parameter(
        _ROUTING, "transport_maps", kinds.TABLES, "",
        "Recipient or domain to smtp:nexthop, discard:, error:text or hold:text.",
    ),
    Parameter(
        _ROUTING, "smtp_fallback_relay", kinds.NEXTHOPS, "",
        "Servers for mail whose destination cannot be found or reached.",
    ),
    Parameter(
        _DNS, "smtp_host_lookup", kinds.choices("dns", "native"), "dns",
        "How addresses of hosts are found: DNS, the system's own look-up, or one after the other.",
    ),
    Parameter(
        _DNS, "smtp_dns_support_level", kinds.choice("disabled", "enabled", "dnssec", empty="enabled"),
        "enabled",
        "Whether DNS is asked, and whether validated answers are asked for; disabled: no MX look-ups.",
    ),
    Parameter(
        _DNS, "dns_servers", kinds.SERVERS, "", "Name servers to ask; empty: those of /etc/resolv.conf."
    ),
    Parameter(
        _DNS, "inet_protocols", kinds.choices("ipv4", "ipv6", every="all"), "all", "The Internet protocols to use."
    ),
    Parameter(
        _DNS, "smtp_address_preference", kinds.choice("any", "ipv4", "ipv6"), "any",
        "Which addresses go first among those of equal preference.",
    ),
    Parameter(
        _DNS, "smtp_mx_address_limit", kinds.number(0), "5", "The most addresses tried in one attempt; 0: no limit."
    ),
    Parameter(
        _DNS, "smtp_mx_session_limit", kinds.number(0), "2",
        "The most sessions tried in one attempt, when they got as far as a greeting; 0: no limit.",
    ),
    Parameter(
        _TLS, "smtp_tls_security_level",
        kinds.choice(
            "none", "may", "encrypt", later=("dane", "dane-only", "fingerprint", "verify", "secure"), empty="none"
        ),
        "may", "What connections must prove where smtp_tls_policy_maps says nothing.",
    ),
    Parameter(
        _TLS, "smtp_tls_policy_maps", kinds.TABLES, "",
        "Nexthop to level and attributes (connection_reuse); a parent domain's entry begins with a dot.",
    ),
    Parameter(
        _TLS, "smtp_tls_loglevel", kinds.number(0, 4), "1",
        "1: one line for each TLS session, and for each transaction that reuses it; 2 to 4 say no more; 0: none.",
    ),
    Parameter(
        _REUSE, "smtp_tls_connection_reuse", kinds.YES_NO, "yes",
        "Carry more than one transaction over a TLS session; no: a TLS session ends after one.",
    ),
    Parameter(
        _REUSE, "smtp_connection_cache_on_demand", kinds.YES_NO, "yes",
        "Let a session rest for the next message when its destination is busy.",
    ),
    Parameter(
        _REUSE, "smtp_connection_cache_destinations", kinds.DESTINATIONS, "",
        "Destinations whose sessions always rest for the next message.",
    ),
    Parameter(
        _REUSE, "smtp_connection_cache_time_limit", kinds.duration(), "15s", "How long a session rests before it ends."
    ),
    Parameter(
        _REUSE, "smtp_connection_reuse_time_limit", kinds.duration(), "300s",
        "The age from which on a session begins no transaction.",
    ),
    Parameter(
        _REUSE, "smtp_connection_reuse_count_limit", kinds.number(0), "0",
        "How often a session is reused: N gives N + 1 transactions; 0: no limit.",
    ),
    Parameter(
        _REUSE, "session_limit", kinds.number(1), "1000", "The most sessions: connecting, busy and resting."
    ),
    Parameter(_REUSE, "resting_session_limit", kinds.number(0), "500", "The most sessions that rest."),
    Parameter(
        _REUSE, "resting_session_limit_per_key", kinds.number(0), "20",
        "The most resting sessions that were opened in the same way to the same address.",
    ),
    Parameter(
        _SMTP, "smtp_bind_address", kinds.source_address(4), "",
        "The address to connect from; empty: the system's choice.",
    ),
    Parameter(
        _SMTP, "smtp_bind_address6", kinds.source_address(6), "",
        "The address to connect from over IPv6; empty: the system's choice.",
    ),
    Parameter(_SMTP, "smtp_helo_name", kinds.GREETING_NAME, "$myhostname", "The name given in EHLO."),
    Parameter(_SMTP, "smtp_connect_timeout", kinds.duration(), "30s", "How long a connection may take to open."),
    Parameter(
        _SMTP, "smtp_helo_timeout", kinds.duration(), "300s", "How long to wait for the greeting and the reply to EHLO."
    ),
    Parameter(
        _SMTP, "smtp_starttls_timeout", kinds.duration(), "300s",
        "How long to wait for the reply to STARTTLS, and for the handshake.",
    ),
    Parameter(_SMTP, "smtp_mail_timeout", kinds.duration(), "300s", "How long to wait for the reply to MAIL."),
    Parameter(_SMTP, "smtp_rcpt_timeout", kinds.duration(), "300s", "How long to wait for the reply to RCPT."),
    Parameter(_SMTP, "smtp_data_init_timeout", kinds.duration(), "120s", "How long to wait for the reply to DATA."),
    Parameter(_SMTP, "smtp_data_xfer_timeout", kinds.duration(), "180s", "How long sending content may stand still."),
    Parameter(
        _SMTP, "smtp_data_done_timeout", kinds.duration(), "600s", "How long to wait for the reply to the final dot."
    ),
    Parameter(
        _SMTP, "smtp_rset_timeout", kinds.duration(), "20s", "How long to wait for the first reply of a reused session."
    ),
    Parameter(_SMTP, "smtp_quit_timeout", kinds.duration(), "300s", "How long to wait for the reply to QUIT."),
    Parameter(
        _SMTP, "smtp_per_request_deadline", kinds.YES_NO, "no",
        "Let these time limits bound the whole of a command and its reply, not each read and write.",
    ),
    Parameter(
        _SMTP, "smtp_skip_5xx_greeting", kinds.YES_NO, "yes",
        "Go on to the next server when one greets with 5xx; no: return the mail.",
    ),
    Parameter(
        _SMTP, "smtp_line_length_limit", kinds.number(0, unit="octets"), "0",
        "Break longer lines of content with CRLF and a space; 0: never.",
    ),
    Parameter(
        _SMTP, "smtp_discard_ehlo_keywords", kinds.KEYWORDS, "", "What to overlook in replies to EHLO."
    ),
    Parameter(
        _SCHEDULE, "default_destination_concurrency_limit", kinds.number(0), "20",
        "The most sessions to one site; 0: no limit but session_limit.",
    ),
    Parameter(
        _SCHEDULE, "initial_destination_concurrency", kinds.number(1), "5", "How many sessions to a site to begin with."
    ),
    Parameter(
        _SCHEDULE, "default_destination_recipient_limit", kinds.number(0), "50",
        "The most recipients of a transaction; 0: no limit but smtpd_recipient_limit.",
    ),
    Parameter(
        _SCHEDULE, "default_destination_rate_delay", kinds.duration(zero=True), "0s",
        "The pause between two transactions to one site; its session is kept.",
    ),
    Parameter(
        _SCHEDULE, "minimal_backoff_time", kinds.duration(), "300s", "The pause before the second attempt; it doubles."
    ),
    Parameter(_SCHEDULE, "maximal_backoff_time", kinds.duration(), "4000s", "The longest pause between two attempts."),
    Parameter(
        _SCHEDULE, "qmgr_message_active_limit", kinds.number(1), "20000", "The most messages in memory for delivery."
    ),
    Parameter(
        _PROCESSES, "smtp_processes", kinds.processes(), "0",
        "How many processes deliver; 0: the main process does.", at_start=True,
    ),
    Parameter(
        _PROCESSES, "tlsproxy_processes", kinds.processes(), "0",
        "How many processes hold TLS for the others, at least; 0: each process its own.", at_start=True,
    ),
    Parameter(
        _PROCESSES, "scache_processes", kinds.choice("auto", "0", "1"), "0",
        "Whether a process of its own keeps the sessions at rest; 0: each that delivers keeps its own.", at_start=True,
    ),
    Parameter(
        _PROCESSES, "tlsproxy_session_limit", kinds.number(1), "1000",
        "The most sessions of one TLS proxy; where all have as many, another is started.",
    ),
    Parameter(_PROCESSES, "max_idle", kinds.duration(), "100s", "How long a surplus TLS proxy may have no session."),
    Parameter(
        _PROCESSES, "max_use", kinds.number(1), "100", "A TLS proxy is replaced after max_idle times this, busy or not."
    ),
    Parameter(
        _PROCESSES, "role_watchdog_timeout", kinds.duration(), "30s",
        "A process that has not answered for so long is killed and replaced.",
    ),
    Parameter(
        _OPERATING, "maillog_file", kinds.PATH_OR_EMPTY, "", "Where the operator's log goes; empty: to standard output."
    ),
    Parameter(
        _OPERATING, "maillog_time", kinds.choice("syslog", "iso"), "syslog",
        "How its lines begin: as syslog's files do, or with the time of RFC 3339.",
    ),
    Parameter(
        _OPERATING, "control_socket", kinds.PATH, "$queue_directory/control",
        "The UNIX socket that the smtpreuse command talks to; its path has at most 107 octets.", at_start=True,
    ),
    Parameter(
        _OPERATING, "shutdown_timeout", kinds.duration(zero=True), "30s",
        "How long sessions may go on with their transaction after SIGTERM.",
    ),
)

BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
