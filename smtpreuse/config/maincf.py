"""
The syntax of Postfix's C{main.cf}: logical lines, assignments, and C{$name} in values.

Knows no parameter and opens no file. Source: postconf(5), section "DESCRIPTION"; C{readlline.c} and C{mac_expand.c} for
what it leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import define, field, frozen

from smtpreuse.errors import BadValue

_NAME = re.compile(r"[A-Za-z0-9_]+")
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|[({]?\s*(?P<name>[A-Za-z0-9_]+))")
_CLOSING = {"{": "}", "(": ")"}

WHITE_SPACE = " \t\n\r\v\f"
"""What isspace(3) has for it in every locale; other blanks are letters like any other, as in Postfix."""

COMMAND_LINE = "command line"
"""The origin of an assignment that stands in no file."""


@frozen(kw_only=True)
class Assignment:
    """
    One C{name = value}.

    @ivar value: as it is written, continuation lines joined, C{$names} not expanded.
    @ivar origin: C{FILE:LINE} of its first line, or C{command line}.
    """

    name: str
    value: str
    origin: str


def logical_lines(text: str) -> tuple[list[tuple[int, str]], list[int]]:
    """
    Join continuation lines; drop comments and empty lines, also those between a line and its continuation.

    @return: the logical lines, each with the number of its first line, from 1; and the numbers of lines that continue
        nothing.
    """
    lines: list[tuple[int, str]] = []
    lost: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        visible = line.strip(WHITE_SPACE)
        if not visible or visible.startswith("#"):
            continue
        if line[0] not in WHITE_SPACE:
            lines.append((number, line.rstrip(WHITE_SPACE)))
        elif lines:
            lines[-1] = (lines[-1][0], lines[-1][1] + line.rstrip(WHITE_SPACE))
        else:
            lost.append(number)
    return lines, lost


def parse(text: str, file: str) -> tuple[list[Assignment], list[str]]:
    """
    @param file: the name that origins and problems carry.
    @return: the assignments in the order of the file, and one line for each error.
    """
    lines, lost = logical_lines(text)
    found: list[Assignment] = []
    problems = [f"{file}:{number}: a line that begins with white space continues nothing" for number in lost]
    for number, line in lines:
        try:
            found.append(_assignment(line, f"{file}:{number}"))
        except BadValue as error:
            problems.append(f"{file}:{number}: {error}")
    return found, problems


def parse_override(text: str) -> Assignment:
    """
    An assignment of the command line, C{name=value}.

    @raise BadValue: when it is none.
    """
    return _assignment(text, COMMAND_LINE)


def _assignment(line: str, origin: str) -> Assignment:
    name, equals, value = line.partition("=")
    name = name.strip(WHITE_SPACE)
    if not equals:
        raise BadValue(f"no '=' behind the name: {line.strip()}")
    if not _NAME.fullmatch(name):
        raise BadValue(f"not a parameter name: {name}")
    return Assignment(name=name, value=value.strip(WHITE_SPACE), origin=origin)


def references(text: str) -> set[str]:
    """The names that a value mentions, whether or not it comes to use them."""
    return {match["name"] for match in _REFERENCE.finditer(text) if match["name"]}


@define
class Definitions:
    """
    Names with their texts; gives both with every C{$name} replaced.

    @ivar texts: what is defined, not expanded.
    """

    texts: Mapping[str, str]
    _known: dict[str, str] = field(factory=dict, init=False)
    _open: list[str] = field(factory=list, init=False)

    def value(self, name: str) -> str:
        """
        The expanded value of a name that is defined.

        @raise BadValue: when it cannot be expanded, or leads back to itself.
        """
        if name in self._open:
            cycle = " -> ".join([*self._open[self._open.index(name):], name])
            raise BadValue(f"its $names lead in a circle: {cycle}")
        if name not in self._known:
            self._open.append(name)
            try:
                self._known[name] = self.expand(self.texts[name])
            except RecursionError:
                raise BadValue("its $names are nested too deeply") from None
            finally:
                self._open.pop()
        return self._known[name]

    def expand(self, text: str) -> str:
        """
        Replace C{$name}, C{${name}}, C{$(name)}, C{${name?text}}, C{${name:text}} and C{${name?{text}:{text}}}.

        A name that is not defined counts as empty where it is asked about, and is an error where its value is wanted.
        C{$$} is one C{$}.

        @raise BadValue: when that fails.
        """
        pieces: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            pieces.append(text[at:dollar])
            piece, at = self._reference(text, dollar + 1)
            pieces.append(piece)
        return "".join([*pieces, text[at:]])

    def _reference(self, text: str, at: int) -> tuple[str, int]:
        first = text[at:at + 1]
        if first == "$":
            return "$", at + 1
        if first in _CLOSING:
            end = closed_at(text, at)
            return self._bracketed(text[at + 1:end]), end + 1
        name = _NAME.match(text, at)
        if name is None:
            raise BadValue(f"a $ that no name follows (one $ is written $$): {text}")
        return self._wanted(name.group()), name.end()

    def _bracketed(self, inner: str) -> str:
        if inner.lstrip().startswith("{"):
            raise BadValue(f"comparisons do not work yet: ${{{inner}}}")
        name = _NAME.match(inner.lstrip())
        if name is None:
            raise BadValue(f"a $ whose brackets hold no name: ${{{inner}}}")
        rest = inner.lstrip()[name.end():]
        if not rest.strip():
            return self._wanted(name.group())
        yes, no = _branches(rest)
        there = name.group() in self.texts and self.value(name.group())
        return self.expand(yes if there else no)

    def _wanted(self, name: str) -> str:
        if name not in self.texts:
            raise BadValue(f"refers to a name that is not defined: ${name}")
        return self.value(name)


def closed_at(text: str, at: int) -> int:
    """
    Where the bracket that opens at C{at} is closed, counting those of its own kind.

    @raise BadValue: when it is not.
    """
    opening, closing = text[at], _CLOSING[text[at]]
    depth = 0
    for place in range(at, len(text)):
        if text[place] == opening:
            depth += 1
        elif text[place] == closing:
            depth -= 1
            if depth == 0:
                return place
    raise BadValue(f"a '{opening}' that is not closed: {text}")


def _branches(rest: str) -> tuple[str, str]:
    """What C{${name REST}} gives when the name has a value, and when it has none."""
    operator, operand = rest.lstrip()[0], rest.lstrip()[1:]
    if operator not in "?:":
        raise BadValue(f"neither '?' nor ':' behind the name: {rest.strip()}")
    if not operand.lstrip().startswith("{"):
        return (operand, "") if operator == "?" else ("", operand)
    operand = operand.lstrip()
    end = closed_at(operand, 0)
    first, rest = operand[1:end], operand[end + 1:].strip()
    if not rest:
        return (first, "") if operator == "?" else ("", first)
    if operator == ":" or not rest.startswith(":"):
        raise BadValue(f"what does not belong behind '}}': {rest}")
    second = rest[1:].strip()
    if second.startswith("{"):
        if closed_at(second, 0) != len(second) - 1:
            raise BadValue(f"what does not belong behind '}}': {second}")
        second = second[1:-1]
    return first, second
