"""
The two rules of the import ladder that import-linter cannot say, because they are about parts of Twisted. The rest of
the ladder is in C{setup.cfg}.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import smtpreuse

PACKAGE = Path(smtpreuse.__file__).resolve().parent


def imported(source: str) -> set[str]:
    """The full names that a module imports, wherever in it: C{from a import b} imports C{a} and C{a.b}."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def importers(name: str) -> Iterator[str]:
    """The packages and top modules of ours that import this name."""
    for path in PACKAGE.rglob("*.py"):
        if name in imported(path.read_text()):
            yield path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class LadderTests(SynchronousTestCase):
    """Some parts of Twisted are for some packages only."""

    def test_reactor(self) -> None:
        """The global reactor is imported by the assembly and the commands alone: all else is given a reactor."""
        self.assertEqual(set(importers("twisted.internet.reactor")) - {"roles", "tap", "cli"}, set())

    def test_amp(self) -> None:
        """AMP is spoken in C{ipc} alone."""
        self.assertEqual(set(importers("twisted.protocols.amp")) - {"ipc"}, set())

    def test_sees_imports(self) -> None:
        """An import inside a function, under either form, is seen."""
        source = "def f():\n    from twisted.internet import reactor\n    import twisted.protocols.amp as a\n"
        self.assertLessEqual({"twisted.internet.reactor", "twisted.protocols.amp"}, imported(source))
