"""
What a server says that is more than one fixed text (RFC 5321 sections 4.1.1.1, 4.2.1 and 4.5.3.1.5).

It knows no session: each reply is made of what it tells. The texts are Postfix's.
"""

from __future__ import annotations

from smtpreuse.smtp.order import NOT_IMPLEMENTED, Encryption

OUT_OF_STEP = "554 5.5.0 Error: SMTP protocol synchronization"
TLS_FIRST = "530 5.7.0 Must issue a STARTTLS command first"
_HELP = "214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"
_OFFERED = frozenset({Encryption.MAY, Encryption.MUST})


def line(text: str) -> bytes:
    """
    A reply of one line, of at most 512 octets.

    @param text: what does not print in ASCII becomes C{?}.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return text[:510].encode("ascii") + b"\r\n"


def extensions(name: str, size_limit: int, encryption: Encryption) -> bytes:
    """
    The reply to EHLO.

    @param name: our own.
    @param size_limit: octets; 0 for no limit.
    """
    size = f"SIZE {size_limit}" if size_limit else "SIZE"
    tls = ("STARTTLS",) if encryption in _OFFERED else ()
    lines = (name, "PIPELINING", size, *tls, "ENHANCEDSTATUSCODES", "8BITMIME", "HELP")
    text = "".join(f"250-{each}\r\n" for each in lines[:-1]) + f"250 {lines[-1]}\r\n"
    return text.encode("ascii", "replace")


def commands(encryption: Encryption) -> str:
    """The reply to HELP."""
    return f"{_HELP} STARTTLS" if encryption in _OFFERED else _HELP


def no_starttls(encryption: Encryption) -> str | None:
    """Why there is no STARTTLS now; L{None} where there is."""
    if encryption in _OFFERED:
        return None
    active = encryption is Encryption.ACTIVE
    return "503 5.5.1 Error: TLS already active" if active else "502 5.5.1 Error: command not implemented"


def unknown(verb: bytes) -> str:
    """
    The reply to a command that we do not have.

    @param verb: in capital letters; empty where there was none.
    """
    if verb in NOT_IMPLEMENTED:
        return "502 5.5.1 Error: command not implemented"
    return "500 5.5.2 Error: command not recognized" if verb else "500 5.5.2 Error: bad syntax"
