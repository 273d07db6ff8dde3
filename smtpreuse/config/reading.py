"""
From assignments to values: which text a parameter has, where it stands, and what is wrong with it.

Knows the table of parameters; opens no C{main.cf} (tables that it names are opened by their kind).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress

from attrs import define, evolve, field, frozen

from smtpreuse.config.kinds import first_line
from smtpreuse.config.maincf import COMMAND_LINE, Assignment, Definitions, references
from smtpreuse.config.parameters import BY_NAME, PARAMETERS, Parameter
from smtpreuse.config.postfix import POSTFIX_NAMES
from smtpreuse.errors import BadValue

DEFAULT = "default"
"""The origin of a value that nobody set."""

# What stands for a value that has a problem, so that the rest can be looked at all the same.
_DEFAULTS = Definitions(
    {parameter.name: "localhost" if parameter.computed else parameter.default for parameter in PARAMETERS}
)


@frozen(kw_only=True)
class Reading:
    """
    What was understood.

    @ivar values: one for each parameter; of those with a problem, the default's.
    @ivar texts: their texts, expanded; of file names the whole path.
    @ivar origins: C{FILE:LINE}, C{command line} or C{default} of each.
    @ivar problems: one line for each error.
    @ivar wrong: the names of parameters whose value is not theirs because of a problem.
    """

    values: Mapping[str, object]
    texts: Mapping[str, str]
    origins: Mapping[str, str]
    problems: tuple[str, ...]
    wrong: frozenset[str]


def problem(origin: str, parameter: Parameter, what: str) -> str:
    """One error in the form that all have. @param what: C{what is wrong: VALUE}."""
    return f"{origin}: {parameter.name}: {what} (allowed: {parameter.kind.allowed})"


def read(assignments: Iterable[Assignment], *, directory: str, current: str, system_name: Callable[[], str]) -> Reading:
    """
    Make values of assignments; of two for one name, the later counts.

    @param directory: what file names in a file are relative to.
    @param current: what file names on the command line are relative to.
    @param system_name: finds out the name of this host; called only when C{myhostname} is not set.
    """
    given = {assignment.name: _anchored(assignment, current) for assignment in assignments}
    own = _own(given)
    problems = [*_strangers(given, own)]
    texts = {parameter.name: parameter.default for parameter in PARAMETERS if not parameter.computed}
    texts |= {name: assignment.value for name, assignment in given.items()}
    texts = _with_names(_with_origin(texts), system_name)
    evaluation = _Evaluation(Definitions(texts), given, directory, current)
    for parameter in PARAMETERS:
        evaluation.take(parameter)
    for name in own:
        evaluation.try_out(given[name])
    return Reading(
        values=evaluation.values,
        texts=evaluation.texts,
        origins={name: given[name].origin if name in given else DEFAULT for name in BY_NAME},
        problems=(*problems, *(evaluation.problems or evaluation.consequences)),
        wrong=frozenset(evaluation.wrong),
    )


@define
class _Evaluation:
    """
    Goes through the parameters.

    @ivar consequences: problems of defaults; they come from a problem of a parameter that the default mentions, and
        are told only where there is no such problem. So are those of names that are no parameters.
    """

    definitions: Definitions
    given: Mapping[str, Assignment]
    directory: str
    current: str
    values: dict[str, object] = field(factory=dict)
    texts: dict[str, str] = field(factory=dict)
    problems: list[str] = field(factory=list)
    consequences: list[str] = field(factory=list)
    wrong: set[str] = field(factory=set)

    def take(self, parameter: Parameter) -> None:
        assignment = self.given.get(parameter.name)
        origin = assignment.origin if assignment else DEFAULT
        directory = self.current if origin == COMMAND_LINE else self.directory
        try:
            text = self.definitions.value(parameter.name) if parameter.name in self.definitions.texts else ""
            value = parameter.kind.parse(text, directory)
            self.values[parameter.name] = value
            self.texts[parameter.name] = str(value) if parameter.kind.files else text
        except BadValue as error:
            told = self.problems if assignment else self.consequences
            told.extend(problem(origin, parameter, what) for what in error.problems)
            self.wrong.add(parameter.name)
            self.texts[parameter.name] = text = _DEFAULTS.value(parameter.name)
            self.values[parameter.name] = parameter.kind.parse(text, directory)


    def try_out(self, assignment: Assignment) -> None:
        """A name of the administrator's own has to be right even where no value comes to use it."""
        try:
            self.definitions.value(assignment.name)
        except BadValue as error:
            self.consequences.extend(f"{assignment.origin}: {assignment.name}: {what}" for what in error.problems)


def _anchored(assignment: Assignment, current: str) -> Assignment:
    """A file name of the command line is made absolute at once: others may refer to it by C{$name}."""
    parameter = BY_NAME.get(assignment.name)
    bare = parameter is not None and parameter.kind.files and assignment.value and assignment.value[0] not in "/$"
    if not bare or assignment.origin != COMMAND_LINE:
        return assignment
    return evolve(assignment, value=os.path.join(current.replace("$", "$$"), assignment.value))


def _own(given: Mapping[str, Assignment]) -> list[str]:
    """
    The administrator's own names: those that a parameter's value refers to, directly or through others of them. One
    that only itself or its like refer to does nothing, and may well be a parameter's name with an error in it.
    """
    reached: set[str] = set()
    ahead = [name for name in given if name in BY_NAME]
    while ahead:
        found = references(given[ahead.pop()].value) - reached
        reached |= found
        ahead += [name for name in found if name in given and name not in BY_NAME]
    return [name for name in given if name in reached and name not in BY_NAME]


def _strangers(given: Mapping[str, Assignment], own: Container[str]) -> Iterable[str]:
    """Problems of names that are in no table, and not the administrator's own."""
    for name, assignment in given.items():
        if name in BY_NAME:
            continue
        if name in POSTFIX_NAMES:
            yield f"{assignment.origin}: {name}: a parameter of Postfix that is not supported (yet): {assignment.value}"
        elif name not in own:
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield f"{assignment.origin}: {name}: unknown parameter: {assignment.value}{hint}"


def _with_origin(texts: dict[str, str]) -> dict[str, str]:
    """Put the content of a file that C{myorigin} names in its place, as others may refer to it by C{$myorigin}."""
    path = texts["myorigin"]
    if path.startswith("/"):
        # Where it cannot be read the name of the file stays, and is told with the reason.
        with suppress(BadValue):
            return {**texts, "myorigin": first_line(path).replace("$", "$$")}
    return texts


def _with_names(texts: dict[str, str], system_name: Callable[[], str]) -> dict[str, str]:
    """
    Add C{myhostname} and C{mydomain} where they are not set, each from the other, as Postfix does (C{mail_params.c}).
    Where the one that is set cannot be expanded the other stays undefined: its user is told of the first.
    """
    texts = dict(texts)
    with suppress(BadValue):
        if "myhostname" not in texts:
            name = system_name()
            domain = Definitions(texts).value("mydomain") if "mydomain" in texts else "localdomain"
            texts["myhostname"] = name if "." in name else f"{name}.{domain}"
        if "mydomain" not in texts:
            texts["mydomain"] = Definitions(texts).value("myhostname").partition(".")[2] or "localdomain"
    return texts
