"""
Command lines: reading them as a server, building them as a client (RFC 5321 section 4.1).

It does not know in what order commands may come. Addresses are ASCII, kept as they stand between their brackets, quotes
included. More is read than RFC 5321 allows where Postfix reads it and nothing is lost by it: blanks and tabs behind the
colon, a path without brackets, dots anywhere in a local part (such addresses exist), underscores in domains, a dot at
their end (which is dropped). What was read once is sent even if it would not be read today: it was answered 250.
"""

from __future__ import annotations

import re

from attrs import frozen

from smtpreuse.errors import AddressError
from smtpreuse.model.message import Body
from smtpreuse.model.nexthop import parsed_address

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_LITERAL = r"\[(?P<literal>[0-9.]+|[Ii][Pp][Vv]6:[0-9A-Fa-f:.]+)\]"
_LOCAL = (
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
    r'|"(?:[ !#-\[\]-~]|\\[ -~])*")'
)
_DOMAIN = rf"(?P<domain>{_LABEL}(?:\.{_LABEL})*)"
_MAILBOX = rf"{_LOCAL}(?:@(?:{_DOMAIN}\.?|{_LITERAL}))?"
_ROUTE = r'(?:@[^:<>"]*:)?'
_PATH = re.compile(rf"[ \t]*<{_ROUTE}{_MAILBOX}>(?=[ \t]|$)".encode())
_BARE_PATH = re.compile(rf"[ \t]*{_MAILBOX}(?=[ \t]|$)".encode())
_NULL_PATH = re.compile(rb"[ \t]*<>(?=[ \t]|$)")
_ADDRESS = re.compile(rf"{_LOCAL}(?:@(?:{_DOMAIN}|{_LITERAL}))?")
# RFC 1035 section 2.3.4, in octets.
_LONGEST_LABEL = 63
_LONGEST_DOMAIN = 255
# RFC 1870 section 4.
_SIZE = re.compile(rb"[0-9]{1,20}")
_SHOWN = 100
_BODIES = {b"7BIT": Body.SEVEN_BIT, b"8BITMIME": Body.EIGHT_BIT}

_MAIL_SYNTAX = "501 5.5.4 Syntax: MAIL FROM:<address>"
_UNICODE = "553 5.6.7 Must declare SMTPUTF8 to send unicode address"


@frozen
class MailFrom:
    """
    MAIL, read.

    @ivar sender: empty for the null sender.
    @ivar size: as the client declared it, in octets; 0 when it did not.
    """

    sender: str
    size: int = 0
    body: Body = Body.UNKNOWN


@frozen
class RcptTo:
    """RCPT, read; the address may be without a domain."""

    address: str


def parse_mail(argument: bytes) -> MailFrom | str:
    """
    @param argument: what stands behind C{MAIL} and a blank.
    @return: the command, or the reply that refuses it.
    """
    if argument[:5].upper() != b"FROM:":
        return _MAIL_SYNTAX
    path = argument[5:]
    if not path.strip():
        return _MAIL_SYNTAX
    if null := _NULL_PATH.match(path):
        sender, rest = "", path[null.end() :]
    else:
        found = _path(path)
        if found is None:
            return "501 5.1.7 Bad sender address syntax" if argument.isascii() else _UNICODE
        sender, rest = found
    if not rest:
        return MailFrom(sender)
    return _with_parameters(sender, rest.split())


def parse_rcpt(argument: bytes) -> RcptTo | str:
    """
    @param argument: what stands behind C{RCPT} and a blank.
    @return: the command, or the reply that refuses it.
    """
    if argument[:3].upper() != b"TO:" or not argument[3:].strip():
        return "501 5.5.4 Syntax: RCPT TO:<address>"
    found = _path(argument[3:])
    if found is None:
        return "501 5.1.3 Bad recipient address syntax" if argument.isascii() else _UNICODE
    address, rest = found
    if rest.strip():
        return _unsupported(rest.split()[0])
    return RcptTo(address)


def first_word(octets: bytes) -> str:
    """
    What the log shows of octets that are no command in its place. Further on there may be content, or a password.

    @return: a colon and the word, of so many characters at most as Postfix shows; empty where there is none.
    """
    words = octets[:_SHOWN].split(None, 1)
    return f": {words[0].decode('ascii', 'replace')}" if words else ""


def _path(text: bytes) -> tuple[str, bytes] | None:
    """The mailbox at the beginning of this text and what follows it; L{None} when there is none."""
    match = _PATH.match(text) or _BARE_PATH.match(text)
    if match is None:
        return None
    local, domain, literal = match["local"], match["domain"], match["literal"]
    if domain is not None:
        if not _is_domain(domain):
            return None
        local += b"@" + domain
    elif literal is not None:
        if not _is_literal(literal.decode("ascii")):
            return None
        local += b"@[%b]" % literal
    return local.decode("ascii"), text[match.end() :]


def _is_domain(domain: bytes) -> bool:
    """Whether these labels may stand in DNS together, and are no address without its brackets."""
    labels = domain.split(b".")
    return len(domain) <= _LONGEST_DOMAIN and max(map(len, labels)) <= _LONGEST_LABEL and not labels[-1].isdigit()


def _is_literal(text: str) -> bool:
    address = parsed_address(text[5:] if text[:5].lower() == "ipv6:" else text)
    return address is not None and (":" in address) == (":" in text)


def _with_parameters(sender: str, words: list[bytes]) -> MailFrom | str:
    size, body = 0, Body.UNKNOWN
    for word in words:
        keyword, _, value = word.partition(b"=")
        keyword = keyword.upper()
        if keyword == b"SIZE":
            if not _SIZE.fullmatch(value):
                return "501 5.5.4 Bad message size syntax"
            size = int(value)
        elif keyword == b"BODY":
            known = _BODIES.get(value.upper())
            if known is None:
                return _unsupported(word)
            body = known
        else:
            return _unsupported(word)
    return MailFrom(sender, size, body)


def _unsupported(word: bytes) -> str:
    return f"555 5.5.4 Unsupported option: {word.decode('ascii', 'replace')}"


def mail_line(address: str, parameters: str = "") -> bytes:
    """
    @param address: empty for the null sender.
    @param parameters: C{SIZE=4096 BODY=8BITMIME}; empty for none.
    @raise AddressError: when either would not be read as what it is meant for.
    """
    if address:
        _check_address(address)
    if not parameters:
        return b"MAIL FROM:<%b>\r\n" % address.encode("ascii")
    _check_text(parameters)
    return b"MAIL FROM:<%b> %b\r\n" % (address.encode("ascii"), parameters.encode("ascii"))


def rcpt_line(address: str) -> bytes:
    """
    @raise AddressError: when the address would not be read as what it is meant for.
    """
    _check_address(address)
    return b"RCPT TO:<%b>\r\n" % address.encode("ascii")


def hello_line(verb: str, name: str) -> bytes:
    """
    @param verb: C{EHLO} or C{HELO}.
    @raise AddressError: when the name is not one word of ASCII.
    """
    _check_text(name)
    if not name or " " in name:
        raise AddressError(f"{verb} name {name!r} is not one word")
    return f"{verb} {name}\r\n".encode("ascii")


def _check_address(address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None or (match["literal"] is not None and not _is_literal(match["literal"])):
        raise AddressError(f"address {address!r} cannot be sent in an SMTP command")


def _check_text(text: str) -> None:
    if not (text.isascii() and text.isprintable()):
        raise AddressError(f"{text!r} cannot be sent in an SMTP command (allowed: printable ASCII)")
