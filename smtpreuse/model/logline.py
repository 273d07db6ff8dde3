"""
The operator's lines, in the grammar of Postfix's log, so that its log tools read ours.

It holds the text behind the syslog header only: pure functions over values, called for every message. They do not
clean what they quote; the one door to the log does that once for the whole line, with L{clean}.

Source: Postfix, C{src/global/log_adhoc.c}, C{src/util/format_tv.c}, C{src/tls/tls_misc.c}, C{src/qmgr/qmgr_active.c}.
"""

from __future__ import annotations

from smtpreuse.model.delivery import DeliveryReport, Outcome
from smtpreuse.model.tlsfacts import TLSResult

_STATUS = {"2": "sent", "4": "deferred", "5": "bounced"}
# Below a tenth of a second two decimals are the limit (delay_logging_resolution_limit); most delays end up here.
_HUNDREDTHS = ("0", *(f"{hundredths / 100:g}" for hundredths in range(1, 11)))


def attempt(queue_id: str, arrived: float, activated: float, report: DeliveryReport, outcome: Outcome) -> str:
    """
    What became of one recipient in one delivery.

    @param arrived: UNIX time at which the message came in.
    @param activated: UNIX time at which it was taken up for delivery.
    """
    recipient = outcome.recipient
    original = recipient.original
    origin = f" orig_to=<{original}>," if original and original.lower() != recipient.address.lower() else ""
    use = f" conn_use={report.uses}," if report.uses > 1 else ""
    started, ready, finished = report.started, report.ready, report.finished
    return (
        f"{queue_id}: to=<{recipient.address}>,{origin} relay={report.relay},{use} delay={seconds(finished - arrived)},"
        f" delays={seconds(activated - arrived)}/{seconds(started - activated)}/{seconds(ready - started)}/"
        f"{seconds(finished - ready)}, dsn={outcome.status}, status={_STATUS[outcome.status[0]]} ({outcome.text})"
    )


def seconds(duration: float) -> str:
    """
    A duration as Postfix writes it: two significant digits, at most two decimals, no trailing zeros, whole seconds from
    100 on; a negative one (the clock was set back) is C{0}.
    """
    if duration < 0.1:
        return _HUNDREDTHS[int(duration * 100 + 0.5)] if duration > 0 else "0"
    return f"{duration:.2g}" if duration < 99.5 else f"{duration:.0f}"


def established(verdict: str, relay: str, tls: TLSResult) -> str:
    """
    A TLS session was opened.

    @param verdict: C{Anonymous}, C{Untrusted}, C{Trusted} or C{Verified}.
    @param relay: C{host[address]:port}.
    """
    return _connection(verdict, "established to", relay, tls)


def established_from(peer: str, tls: TLSResult) -> str:
    """
    A client's TLS session was opened; it was not asked for a certificate.

    @param peer: C{host[address]}.
    """
    return _connection("Anonymous", "established from", peer, tls)


def reused(verdict: str, relay: str, tls: TLSResult) -> str:
    """A transaction that is not the first of its TLS session begins; parameters as for L{established}."""
    return _connection(verdict, "reused to", relay, tls)


def _connection(verdict: str, happened: str, whom: str, tls: TLSResult) -> str:
    # OpenSSL's "used" and "algorithm" bits are one number for every cipher since the export ciphers went.
    return (
        f"{verdict} TLS connection {happened} {whom}: {tls.protocol} with cipher {tls.cipher}"
        f" ({tls.bits}/{tls.bits} bits)"
    )


def client(queue_id: str, peer: str) -> str:
    """Who brought a message: C{peer} is C{host[address]}."""
    return f"{queue_id}: client={peer}"


def message_id(queue_id: str, value: str) -> str:
    """The Message-ID of a message, brackets included; empty where it has none."""
    return f"{queue_id}: message-id={value or '<>'}"


def active(queue_id: str, sender: str, size: int, nrcpt: int) -> str:
    """
    A message was taken up for delivery.

    @param size: octets.
    """
    return f"{queue_id}: from=<{sender}>, size={size}, nrcpt={nrcpt} (queue active)"


def expired(queue_id: str, sender: str) -> str:
    """A message was too old to be tried again."""
    return f"{queue_id}: from=<{sender}>, status=expired, returned to sender"


def bounced(queue_id: str, notice: str) -> str:
    """
    A non-delivery notification was queued.

    @param notice: its queue id.
    """
    return f"{queue_id}: sender non-delivery notification: {notice}"


def removed(queue_id: str) -> str:
    """A message left the queue."""
    return f"{queue_id}: removed"


def clean(text: str) -> str:
    """The text with C{?} for every character that does not print, line ends and terminal controls among them."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
