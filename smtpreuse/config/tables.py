"""
Look-up tables (C{texthash:}, C{inline:}, C{static:}) and lists of networks.

Tables are read when the configuration is read, and change with a reload only. Knows no parameter. Source: Postfix's
DATABASE_README, postmap(1) for the form of C{texthash:} files, and C{cidr_match.c} for networks.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping

from attrs import field, frozen

from smtpreuse.config.maincf import closed_at, logical_lines
from smtpreuse.errors import BadValue, TableError

TYPES = ("texthash", "inline", "static")


@frozen(kw_only=True)
class Table:
    """
    One table, in memory.

    @ivar name: as the configuration names it, C{texthash:/etc/smtpreuse/transport}.
    @ivar entries: by key in lower case.
    @ivar always: the answer to every other key, or L{None}.
    @ivar lines: where in its file each key stands; empty for a table that is no file.
    """

    name: str
    entries: Mapping[str, str]
    always: str | None = None
    lines: Mapping[str, int] = field(factory=dict, eq=False)

    def place(self, key: str) -> str:
        """What an operator finds an entry by: the name of the table, and the line of the file."""
        line = self.lines.get(key)
        return self.name if line is None else f"{self.name}:{line}"

    def get(self, key: str) -> str | None:
        """
        What the table says of a key, whatever its case; L{None} when it does not have it.
        """
        return self.entries.get(key.lower(), self.always)


@frozen
class Tables:
    """
    Tables that are asked one after the other.
    """

    tables: tuple[Table, ...] = ()

    @classmethod
    def parse(cls, text: str, directory: str) -> Tables:
        """
        @param text: C{type:name} of each, separated by commas or white space.
        @param directory: what file names are relative to.
        @raise TableError: with one line for each error.
        """
        tables: list[Table] = []
        problems: list[str] = []
        try:
            names = list(split_braced(text))
        except BadValue as error:
            raise TableError(str(error)) from None
        for name in names:
            try:
                tables.append(open_table(name, directory))
            except TableError as error:
                problems.append(str(error))
        if problems:
            raise TableError("\n".join(problems))
        return cls(tuple(tables))

    def get(self, key: str) -> str | None:
        """The answer of the first table that has the key, whatever its case; L{None} when none has it."""
        for table in self.tables:
            value = table.get(key)
            if value is not None:
                return value
        return None

    def items(self) -> Iterator[tuple[str, str, str]]:
        """Every entry as (place in its table, key, value); the key of a C{static:} table is empty."""
        for table in self.tables:
            for key, value in table.entries.items():
                yield table.place(key), key, value
            if table.always is not None:
                yield table.name, "", table.always

    def __bool__(self) -> bool:
        return bool(self.tables)


def split_braced(text: str) -> Iterator[str]:
    """
    Split at commas and white space that stand outside of braces.

    @raise BadValue: when a brace has no partner.
    """
    depth, start = 0, None
    for place, octet in enumerate(text + " "):
        if octet == "{":
            depth += 1
        elif octet == "}":
            depth -= 1
            if depth < 0:
                break
        if depth == 0 and (octet.isspace() or octet == ","):
            if start is not None:
                yield text[start:place]
            start = None
        elif start is None:
            start = place
    if depth:
        raise BadValue(f"a brace has no partner: {text}")


def open_table(name: str, directory: str) -> Table:
    """
    Read one table.

    @param name: C{type:name}.
    @param directory: what file names are relative to.
    @raise TableError: with one line for each error.
    """
    kind, colon, rest = name.partition(":")
    if not colon or not rest or kind not in TYPES:
        raise TableError(f"not a table of a type that works ({', '.join(TYPES)}): {name}")
    try:
        if kind == "static":
            return Table(name=name, entries={}, always=_unbraced(rest))
        if kind == "inline":
            return Table(name=name, entries=_inline(rest))
    except BadValue as error:
        raise TableError(str(error)) from None
    path = os.path.normpath(os.path.join(directory, rest))
    entries, numbers = _texthash(path)
    return Table(name=f"{kind}:{path}", entries=entries, lines=numbers)


def _unbraced(text: str) -> str:
    """
    What stands in braces, of a text that begins with one.

    @raise BadValue: when the brace is closed before the end, or not at all.
    """
    if not text.startswith("{"):
        return text
    end = closed_at(text, 0)
    if end < len(text) - 1:
        raise BadValue(f"something behind the closing brace: {text}")
    return text[1:-1].strip()


def _inline(text: str) -> dict[str, str]:
    if not text.startswith("{"):
        raise TableError(f"entries of an inline table stand in braces, {{key=value, ...}}: {text}")
    entries: dict[str, str] = {}
    for entry in split_braced(_unbraced(text)):
        key, equals, value = (part.strip() for part in _unbraced(entry).partition("="))
        # A key with white space in it is two words where Postfix looks for '=' behind the first.
        if not equals or len(key.split()) != 1 or not value:
            raise TableError(f"not key=value in an inline table: {entry}")
        if key.lower() in entries:
            raise TableError(f"the same key twice in an inline table: {key}")
        entries[key.lower()] = value
    if not entries:
        raise TableError(f"an inline table without an entry: {text}")
    return entries


def _texthash(path: str) -> tuple[dict[str, str], dict[str, int]]:
    """The entries of a file, and their lines."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines, lost = logical_lines(file.read())
    except OSError as error:
        raise TableError(f"cannot be read ({error.strerror}): {path}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"is not UTF-8: {path}") from error
    entries: dict[str, str] = {}
    numbers: dict[str, int] = {}
    problems = [f"{path}:{number}: a line that begins with white space continues nothing" for number in lost]
    for number, line in lines:
        key, *value = line.split(maxsplit=1)
        if not value:
            problems.append(f"{path}:{number}: no value behind the key: {key}")
        elif key.lower() in entries:
            problems.append(f"{path}:{number}: the same key a second time: {key}")
        else:
            entries[key.lower()] = value[0]
            numbers[key.lower()] = number
    if problems:
        raise TableError("\n".join(problems))
    return entries, numbers


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@frozen
class Networks:
    """
    A list of address patterns; the first that matches decides.

    @ivar patterns: each network, and whether it is in the list or, written C{!network}, excluded from it.
    """

    patterns: tuple[tuple[_Network, bool], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Networks:
        """
        @param text: addresses or C{network/length}, IPv6 with or without brackets, separated by commas or white space.
        @raise BadValue: for those that are neither.
        """
        patterns: list[tuple[_Network, bool]] = []
        problems: list[str] = []
        for pattern in text.replace(",", " ").split():
            bare = pattern.lstrip("!")
            wanted = (len(pattern) - len(bare)) % 2 == 0
            try:
                patterns.append((ipaddress.ip_network(_without_brackets(bare)), wanted))
            except ValueError as error:
                problems.append(f"not an address or network ({error}): {pattern}")
        if problems:
            raise BadValue(*problems)
        return cls(tuple(patterns))

    def contains(self, address: str) -> bool:
        """
        Whether an address is in the list; an IPv4 address in IPv6 form (RFC 4291 section 2.5.5.2) counts as IPv4.
        """
        try:
            number = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is not None:
            number = number.ipv4_mapped
        return next((wanted for network, wanted in self.patterns if number in network), False)


def _without_brackets(pattern: str) -> str:
    if not pattern.startswith("["):
        return pattern
    address, closed, length = pattern[1:].partition("]")
    if not closed or "/" in address or (length and not length.startswith("/")) or ":" not in address:
        raise ValueError("brackets go around an IPv6 address, with its /length behind them")
    return address + length
