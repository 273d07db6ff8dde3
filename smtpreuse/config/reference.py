"""
The table of parameters as people read it: C{conf/main.cf} and C{docs/parameters.md}.

C{python -m smtpreuse.config.reference DIRECTORY} writes both below the top of a source tree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from textwrap import wrap

from smtpreuse.config.parameters import PARAMETERS, Parameter

_WIDTH = 100
_SHIPPED = {"queue_directory": "../spool"}
_WHY_SHIPPED = {
    "queue_directory": "Set here so that this file works for any user in a source tree; "
    "in production leave it out, or name a directory on a local disk.",
}

_MAIN_CF = """\
# Configuration of smtpreuse. The syntax is that of Postfix's main.cf: "name = value", a line that begins
# with white space continues the one before, "#" begins a comment line, and $name stands for another
# parameter's value. Relative paths are relative to this file's directory.
#
# Every parameter is here with its default, commented out. Check a change with "smtpreuse conf --check".
"""

_MARKDOWN = """\
# Parameters

*Generated from `smtpreuse/config/parameters.py` by `python -m smtpreuse.config.reference .`; do not edit.*

Names and meanings are Postfix's wherever Postfix has the parameter; where a default differs,
[differences](differences.md) says why. A parameter that is not here does not work yet, and setting it is an error.

## Where they are read from

The first of: the file named by `--config`, the one named by `$SMTPREUSE_CONFIG`, `/etc/smtpreuse/main.cf`, the defaults
alone. `-o name=value` goes before all of them. Relative paths are relative to the directory of `main.cf`; those given
with `-o`, to the current directory. `smtpreuse conf` shows what is in force and where it was set, `smtpreuse conf
--check` all errors at once, each as `FILE:LINE: NAME: what is wrong: VALUE (allowed: ...)`.

A service that runs reads them again at SIGHUP and at `smtpreuse reload`: the same file, with the same words of its
command line before it. When anything is wrong nothing changes. What takes effect at the next start only says so below.

## Syntax

That of Postfix's `main.cf`: `name = value`; lines that begin with `#` and empty lines are skipped; a line that begins
with white space continues the one before; of two assignments to a name the later counts. In values:

| written | stands for |
|---|---|
| `$name`, `${name}`, `$(name)` | its value; an error where the name is not defined or leads back to itself |
| `${name?text}`, `${name?{text}}` | `text` where the parameter has a value, else nothing |
| `${name:text}`, `${name:{text}}` | `text` where it has none, else nothing |
| `${name?{text}:{other}}` | the one or the other |
| `$$` | `$` |

A name of your own may be defined when a value refers to it.

* **Durations** end in `s`, `m`, `h`, `d` or `w`; without one they count in the unit of the table.
* **Sizes** are octets; `K`, `M`, `G` stand for powers of 1,024.
* **Lists** are separated by commas or white space.
* **Tables** are `texthash:FILE` (lines of key and value), `inline:{key=value, {key=text with spaces}}` or
  `static:VALUE`; keys match whatever their case. They are read at start and at reload.

"""


def render_main_cf() -> str:
    """The text of C{conf/main.cf}."""
    lines = [_MAIN_CF]
    for section, parameters in _sections():
        lines += ["", f"## {section}", ""]
        for parameter in parameters:
            lines += [*_explained(parameter), ""]
    return "\n".join(lines).rstrip() + "\n"


def render_markdown() -> str:
    """The text of C{docs/parameters.md}."""
    lines = [_MARKDOWN]
    for section, parameters in _sections():
        lines += [f"## {section}", "", "| parameter | default | unit | allowed | meaning |", "|---|---|---|---|---|"]
        lines += [_row(parameter) for parameter in parameters]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _sections() -> Iterator[tuple[str, list[Parameter]]]:
    for section, parameters in groupby(PARAMETERS, key=lambda parameter: parameter.section):
        yield section, list(parameters)


def _explained(parameter: Parameter) -> Iterator[str]:
    unit = f"Unit: {parameter.kind.unit}. " if parameter.kind.unit else ""
    default = parameter.shown_default or "(empty)"
    for text in (_told(parameter), f"{unit}Default: {default}. Allowed: {parameter.kind.allowed}."):
        yield from wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
    if parameter.name in _SHIPPED:
        yield from wrap(_WHY_SHIPPED[parameter.name], _WIDTH, initial_indent="# ", subsequent_indent="#   ")
        yield f"{parameter.name} = {_SHIPPED[parameter.name]}"
    else:
        yield f"#{parameter.name} = {parameter.default}".rstrip()


def _told(parameter: Parameter) -> str:
    return f"{parameter.meaning} Takes effect at the next start." if parameter.at_start else parameter.meaning


def _row(parameter: Parameter) -> str:
    default = parameter.computed or (f"`{parameter.default}`" if parameter.default else "(empty)")
    cells = (f"`{parameter.name}`", default, parameter.kind.unit, parameter.kind.allowed, _told(parameter))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(top: Path) -> None:
    """Write both files below the top of a source tree."""
    (top / "conf" / "main.cf").write_text(render_main_cf(), encoding="utf-8")
    (top / "docs" / "parameters.md").write_text(render_markdown(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
