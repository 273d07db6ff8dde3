"""
What a connection to a nexthop must prove, by configuration: C{smtp_tls_security_level} and C{smtp_tls_policy_maps}.

Makes no connection and verifies nothing. An entry that cannot be used lowers no level: mail for its nexthop waits.
Source: Postfix's C{smtp_tls_policy.c}; postconf(5), C{smtp_tls_policy_maps}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from attrs import evolve
from twisted.logger import Logger

from smtpreuse.config.settings import Settings
from smtpreuse.config.tables import Table, Tables, split_braced
from smtpreuse.errors import AddressError, BadValue, PolicyError
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import protocol_range

LEVELS = {level.name.lower(): level for level in Level}
_LATER = ("dane", "dane-only", "half-dane", "fingerprint", "verify", "secure")
_ATTRIBUTES = ("ciphers", "connection_reuse", "protocols", "servername")
_ALIASES = {"tls_connection_reuse": "connection_reuse"}
_GRADES = ("medium", "high")


class Policies:
    """
    The policies that one configuration gives.
    """

    def __init__(self, settings: Settings, log: Logger | None = None) -> None:
        """
        @param log: takes the notices.
        """
        self._settings = settings
        self._table = Tables(tuple(_by_nexthop(table) for table in settings.smtp_tls_policy_maps.tables))
        self._log = log or Logger()
        self._entries: dict[str, Policy] = {}
        self._noticed = False
        self._usual = Policy(
            level=LEVELS[settings.smtp_tls_security_level], connection_reuse=settings.smtp_tls_connection_reuse
        )

    def policy(self, nexthop: Nexthop) -> Policy:
        """
        What a connection for this nexthop must prove.

        @raise PolicyError: when the entry in the table cannot be used.
        """
        if self._table:
            for key in keys(nexthop):
                entry = self._table.get(key)
                if entry is not None:
                    return self._of_entry(key, entry)
        return self._usual

    def problems(self) -> list[str]:
        """What is wrong in the table, one line each, in the form of L{ConfigurationError<smtpreuse.errors>}."""
        source = self._settings.source("smtp_tls_policy_maps")
        found = []
        for table in self._settings.smtp_tls_policy_maps.tables:
            known: set[str] = set()
            for place, key, entry in Tables((table,)).items():
                problems = [*_key_problems(key, known), *self._entry_problems(entry)]
                where = f"in {place} for {key or 'every key'}"
                found += [f"{source}: smtp_tls_policy_maps: {problem}, {where}" for problem in problems]
        return found

    def _entry_problems(self, entry: str) -> Sequence[str]:
        try:
            self._read(entry)
        except BadValue as error:
            return error.problems
        return ()

    def _of_entry(self, key: str, entry: str) -> Policy:
        policy = self._entries.get(entry)
        if policy is None:
            try:
                policy = self._entries[entry] = self._read(entry)
            except BadValue as error:
                raise PolicyError(
                    "4.7.5", f"client TLS configuration problem: smtp_tls_policy_maps has for {key}: {error}"
                ) from error
        return policy

    def _read(self, entry: str) -> Policy:
        """
        @raise BadValue: when the entry cannot be used.
        """
        level_name, *words = list(split_braced(entry)) or [""]
        level = LEVELS.get(level_name.lower())
        if level is None:
            what = "level does not work yet" if level_name.lower() in _LATER else "not a level"
            raise BadValue(f"{what}: {level_name} (allowed: {', '.join(LEVELS)})")
        attributes = self._attributes(words)
        if level is Level.NONE and attributes:
            self._log.warn(
                "attributes of a TLS policy were ignored at level none: {names}", names=", ".join(sorted(attributes))
            )
            attributes = {}
        reuse = attributes.get("connection_reuse")
        return Policy(
            level=level,
            connection_reuse=self._settings.smtp_tls_connection_reuse if reuse is None else _yes_or_no(reuse),
            settings=_settings(attributes),
        )

    def _attributes(self, words: list[str]) -> dict[str, str]:
        attributes: dict[str, str] = {}
        for name, value in map(_attribute, words):
            if name in _ALIASES:
                self._notice(name)
                name = _ALIASES[name]
            if name not in _ATTRIBUTES:
                raise BadValue(f"not an attribute that works: {name} (allowed: {', '.join(_ATTRIBUTES)})")
            if name in attributes:
                raise BadValue(f"the same attribute twice: {name}")
            attributes[name] = value
        return attributes

    def _notice(self, name: str) -> None:
        if not self._noticed:
            self._noticed = True
            self._log.info(
                "attribute {name} was read as {meant}: write {meant}", name=name, meant=_ALIASES[name]
            )


def keys(nexthop: Nexthop) -> Iterator[str]:
    """
    What is looked up for a nexthop, in this order: its text; and when that is a bare domain, each parent domain with a
    dot before it.
    """
    yield str(nexthop)
    if not nexthop.literal and nexthop.port == 25:
        dot = nexthop.host.find(".")
        while dot >= 0:
            yield nexthop.host[dot:]
            dot = nexthop.host.find(".", dot + 1)


def canonical(key: str) -> str:
    """
    A key of the table as L{keys} has it: a nexthop may be written in many ways (C{[IPv6:2001:DB8::1]:smtp}), and an
    entry that is not found for its spelling would leave its mail with less than the operator asked for.

    @raise BadValue: when no nexthop has such a key.
    """
    try:
        nexthop = Nexthop.parse(key.removeprefix("."))
    except AddressError:
        nexthop = None
    if nexthop is not None and not key.startswith("."):
        return str(nexthop)
    if nexthop is None or key.lower() != f".{nexthop.host}":
        raise BadValue(f"no nexthop: {key} (allowed: domain, [host], [address], each with :port, or .parent.domain)")
    return key.lower()


def _by_nexthop(table: Table) -> Table:
    """A table with its keys as they are looked up; what no nexthop has is left out: L{Policies.problems} told of it."""
    entries: dict[str, str] = {}
    for key, entry in table.entries.items():
        with suppress(BadValue):
            entries.setdefault(canonical(key), entry)
    return evolve(table, entries=entries)


def _key_problems(key: str, known: set[str]) -> Iterator[str]:
    """
    @param key: of an entry; empty for that of a C{static:} table.
    @param known: the canonical keys of the entries before it in its table.
    """
    if not key:
        return
    try:
        meant = canonical(key)
    except BadValue as error:
        yield from error.problems
        return
    if meant in known:
        yield f"a second entry for the nexthop {meant}"
    known.add(meant)


def _attribute(word: str) -> tuple[str, str]:
    inner = word[1:-1] if word.startswith("{") and word.endswith("}") else word
    name, equals, value = (part.strip() for part in inner.partition("="))
    if not equals or not name or not value:
        raise BadValue(f"not name=value: {word}")
    return name.lower(), value


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise BadValue(f"connection_reuse is neither yes nor no: {text}")
    return text.lower() == "yes"


def _settings(attributes: Mapping[str, str]) -> TLSSettings:
    """The same for C{may} and C{encrypt}, so that an encrypted session of the one may serve the other."""
    usual = TLSSettings()
    protocols = attributes.get("protocols", usual.protocols)
    try:
        protocol_range(protocols)
    except ValueError as error:
        raise BadValue(str(error)) from None
    ciphers = attributes.get("ciphers", usual.ciphers).lower()
    if ciphers not in _GRADES:
        raise BadValue(f"not a cipher grade that works: {ciphers} (allowed: {', '.join(_GRADES)})")
    servername = attributes.get("servername")
    if servername is not None:
        try:
            named = Nexthop.parse(servername)
        except AddressError:
            named = None
        if named is None or named.literal or ":" in servername:
            raise BadValue(f"servername is not a host name: {servername}")
        servername = named.host
    return TLSSettings(protocols=protocols, ciphers=ciphers, servername=servername)
