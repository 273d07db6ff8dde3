"""
Kinds of values: what a parameter's text may say, and the value that it becomes.

Knows no parameter; texts come with C{$names} already replaced. Source: postconf(5) for units and lists.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable

from attrs import frozen

from smtpreuse.config.tables import TYPES, Networks, Tables
from smtpreuse.errors import AddressError, BadValue, TableError
from smtpreuse.model.nexthop import Endpoint, Nexthop, parsed_address

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"([0-9]{1,18})([KMG]?)")
_OCTETS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LABELS = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_LISTEN = re.compile(r"[A-Za-z][A-Za-z0-9]*:.+")

MOST = 2**31 - 1
# More of a role is no use on any machine of today, and a slip of the pen.
_MOST_PROCESSES = 64
"""The largest number a parameter takes, as in Postfix."""

LONGEST = 3650 * 86400.0
"""The longest duration, ten years in seconds: longer ones overflow the timers of the operating system."""


@frozen(kw_only=True)
class Kind:
    """
    @ivar name: for documents.
    @ivar annotation: the type of the value, as L{Settings<smtpreuse.config.settings.Settings>} has it.
    @ivar parse: makes the value of a text and the directory that file names are relative to; raises L{BadValue}.
    @ivar allowed: for people, what it takes.
    @ivar unit: of the value, where it has one.
    @ivar files: whether the text is one file name.
    """

    name: str
    annotation: str
    parse: Callable[[str, str], object]
    allowed: str
    unit: str = ""
    files: bool = False


def split(text: str) -> tuple[str, ...]:
    """The words of a list, separated by commas or white space."""
    return tuple(text.replace(",", " ").split())


def _yes_or_no(text: str, directory: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise BadValue(f"neither yes nor no: {text}")
    return text.lower() == "yes"


YES_NO = Kind(name="yes or no", annotation="bool", parse=_yes_or_no, allowed="yes, no")


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadValue(f"not a whole number: {text}")
    if not least <= int(text) <= most:
        raise BadValue(f"out of bounds: {text}")
    return int(text)


def number(least: int, most: int = MOST, unit: str = "") -> Kind:
    """A whole number between bounds, both included."""

    def parse(text: str, directory: str) -> int:
        return _whole(text, least, most)

    allowed = f"{least} to {most}" if most < MOST else f"{least} or more"
    return Kind(name="number", annotation="int", parse=parse, allowed=allowed, unit=unit)


def processes() -> Kind:
    """How many processes of a role there are; L{None} for as many as are best here."""

    def parse(text: str, directory: str) -> int | None:
        return None if text == "auto" else _whole(text, 0, _MOST_PROCESSES)

    allowed = f"auto, or a number from 0 to {_MOST_PROCESSES}"
    return Kind(name="number or auto", annotation="int | None", parse=parse, allowed=allowed)


def size(least: int = 0) -> Kind:
    """Octets, with K, M or G for powers of 1,024."""

    def parse(text: str, directory: str) -> int:
        match = _SIZE.fullmatch(text.upper())
        if match is None:
            raise BadValue(f"not a size: {text}")
        octets = int(match[1]) * _OCTETS[match[2]]
        if not least <= octets < 2**63:
            raise BadValue(f"out of bounds: {text}")
        return octets

    allowed = f"{least} or more; units K, M, G"
    return Kind(name="size", annotation="int", parse=parse, allowed=allowed, unit="octets")


def duration(unit: str = "s", *, zero: bool = False) -> Kind:
    """
    A time span, which becomes seconds.

    @param unit: what a number without a unit counts.
    @param zero: whether 0 is one.
    """

    def parse(text: str, directory: str) -> float:
        match = _DURATION.fullmatch(text.lower())
        if match is None:
            raise BadValue(f"not a duration: {text}")
        seconds = float(match[1]) * _SECONDS[match[2] or unit]
        if seconds > LONGEST or (seconds == 0 and not zero):
            raise BadValue(f"out of bounds: {text}")
        return seconds

    allowed = f"{'0' if zero else 'above 0'} to 3650d; units s, m, h, d, w"
    return Kind(name="duration", annotation="float", parse=parse, allowed=allowed, unit=unit)


def choice(*allowed: str, later: tuple[str, ...] = (), empty: str = "") -> Kind:
    """
    One of some words.

    @param later: words that Postfix has and this service has not yet.
    @param empty: the word that nothing stands for; where there is none, empty is not allowed.
    """

    def parse(text: str, directory: str) -> str:
        if not text and empty:
            return empty
        if text in later:
            raise BadValue(f"does not work yet: {text}")
        if text not in allowed:
            raise BadValue(f"not one of its values: {text}")
        return text

    shown = ", ".join(allowed) + (f"; empty for {empty}" if empty else "")
    return Kind(name="choice", annotation="str", parse=parse, allowed=shown)


def choices(*allowed: str, every: str = "") -> Kind:
    """
    A list of at least one of some words.

    @param every: a word that stands for all of them.
    """

    def parse(text: str, directory: str) -> tuple[str, ...]:
        words = allowed if every and text == every else tuple(dict.fromkeys(split(text)))
        if not words:
            raise BadValue(f"empty: {text}")
        wrong = [word for word in words if word not in allowed]
        if wrong:
            raise BadValue(*(f"not one of its values: {word}" for word in wrong))
        return words

    names = f"a list of {', '.join(allowed)}"
    shown = f"{every}, or {names}" if every else names
    return Kind(name="list", annotation="tuple[str, ...]", parse=parse, allowed=shown)


def _words(text: str, directory: str) -> tuple[str, ...]:
    return tuple(word.upper() for word in split(text))


KEYWORDS = Kind(
    name="list", annotation="tuple[str, ...]", parse=_words, allowed="a list of keywords, upper and lower case alike"
)


def _domain(text: str, directory: str) -> str:
    if not _LABELS.fullmatch(text):
        raise BadValue(f"not a host or domain name: {text}")
    return text.lower()


DOMAIN = Kind(name="name", annotation="str", parse=_domain, allowed="a host or domain name")


def first_line(path: str) -> str:
    """
    What the first line of a file says, as C{/etc/mailname} has the domain of the host's mail.

    @raise BadValue: when it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError as error:
        raise BadValue(f"cannot be read ({error.strerror}): {path}") from error
    except UnicodeDecodeError as error:
        raise BadValue(f"is not UTF-8: {path}") from error


def _origin(text: str, directory: str) -> str:
    return _domain(first_line(text) if text.startswith("/") else text, directory)


ORIGIN = Kind(
    name="name", annotation="str", parse=_origin, allowed="a domain name, or /path of a file whose first line has it"
)


def _greeting_name(text: str, directory: str) -> str:
    inner = text[1:-1].lower().removeprefix("ipv6:") if text.startswith("[") and text.endswith("]") else None
    if inner is not None and parsed_address(inner) is not None:
        return text
    if not _LABELS.fullmatch(text):
        raise BadValue(f"neither a host name nor an [address]: {text}")
    return text


GREETING_NAME = Kind(name="name", annotation="str", parse=_greeting_name, allowed="a host name or an [address]")


def _destinations(text: str, directory: str) -> tuple[str, ...]:
    found, problems = [], []
    for word in split(text):
        address = parsed_address(word)
        if address is None and not _LABELS.fullmatch(word):
            problems.append(f"not a domain, host name or address: {word}")
        found.append(address or word.lower())
    if problems:
        raise BadValue(*problems)
    return tuple(found)


DESTINATIONS = Kind(
    name="list",
    annotation="tuple[str, ...]",
    parse=_destinations,
    allowed="a list of domains, host names and addresses, without brackets and ports",
)


def _path(text: str, directory: str) -> str:
    if not text or "\0" in text:
        raise BadValue(f"not a file name: {text!r}")
    return os.path.normpath(os.path.join(directory, text))


PATH = Kind(name="path", annotation="str", parse=_path, allowed="a file name", files=True)
PATH_OR_EMPTY = Kind(
    name="path",
    annotation="str",
    parse=lambda text, directory: _path(text, directory) if text else "",
    allowed="a file name, or empty",
    files=True,
)
PATHS = Kind(
    name="list",
    annotation="tuple[str, ...]",
    parse=lambda text, directory: tuple(_path(word, directory) for word in split(text)),
    allowed="a list of file names, or empty",
)


def source_address(version: int) -> Kind:
    """One of our own addresses, or empty. @param version: of the Internet protocol, 4 or 6."""

    def parse(text: str, directory: str) -> str:
        address = parsed_address(text.removeprefix("[").removesuffix("]")) if text else ""
        if address is None or (address and ipaddress.ip_address(address).version != version):
            raise BadValue(f"not an IPv{version} address: {text}")
        return address

    return Kind(name="address", annotation="str", parse=parse, allowed=f"an IPv{version} address, or empty")


def _servers(text: str, directory: str) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    problems: list[str] = []
    for word in split(text):
        address, port = parsed_address(word), "53"
        if address is None:
            host, _, port = word.rpartition(":")
            bracketed = host.startswith("[") and host.endswith("]")
            address = parsed_address(host[1:-1]) if bracketed else parsed_address(host) if "." in host else None
        if address is None or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            problems.append(f"not the address of a name server: {word}")
        else:
            found.append(Endpoint(address, int(port)))
    if problems:
        raise BadValue(*problems)
    return tuple(found)


SERVERS = Kind(
    name="list",
    annotation="tuple[Endpoint, ...]",
    parse=_servers,
    allowed="a list of addresses, each with :port where it is not 53, IPv6 then in brackets; or empty",
)


def _nexthop(text: str) -> Nexthop:
    try:
        return Nexthop.parse(text)
    except AddressError as error:
        raise BadValue(f"{error}: {text}") from None


def _nexthops(text: str, directory: str) -> tuple[Nexthop, ...]:
    found: list[Nexthop] = []
    problems: list[str] = []
    for word in split(text):
        try:
            found.append(_nexthop(word))
        except BadValue as error:
            problems.extend(error.problems)
    if problems:
        raise BadValue(*problems)
    return tuple(found)


_HOPS = "domain, domain:port, [host], [host]:port"
NEXTHOP = Kind(
    name="nexthop",
    annotation="Nexthop | None",
    parse=lambda text, directory: _nexthop(text) if text else None,
    allowed=f"{_HOPS}, or empty",
)
NEXTHOPS = Kind(
    name="list", annotation="tuple[Nexthop, ...]", parse=_nexthops, allowed=f"a list of {_HOPS}, or empty"
)
NETWORKS = Kind(
    name="networks",
    annotation="Networks",
    parse=lambda text, directory: Networks.parse(text),
    allowed="a list of addresses, network/length and [IPv6 network]/length; ! before one excludes it",
)


def _tables(text: str, directory: str) -> Tables:
    try:
        return Tables.parse(text, directory)
    except TableError as error:
        raise BadValue(*str(error).splitlines()) from error


TABLES = Kind(
    name="tables",
    annotation="Tables",
    parse=_tables,
    allowed=f"a list of type:name, types {', '.join(TYPES)}; or empty",
)


def _listen(text: str, directory: str) -> tuple[str, ...]:
    wrong = [word for word in text.split() if not _LISTEN.fullmatch(word)]
    if wrong or not text.split():
        raise BadValue(*(f"not an endpoint: {word}" for word in wrong or [text]))
    return tuple(text.split())


LISTEN = Kind(
    name="endpoints",
    annotation="tuple[str, ...]",
    parse=_listen,
    allowed="Twisted's server endpoints, such as tcp:2525:interface=127.0.0.1, separated by white space",
)
