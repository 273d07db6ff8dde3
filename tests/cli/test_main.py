"""
Tests of C{smtpreuse.cli.main}.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli import conf
from smtpreuse.cli.main import main
from smtpreuse.errors import ConfigurationError, SpoolError


class MainTests(SynchronousTestCase):
    """
    The command's end becomes the exit status that scripts rely on.
    """

    def ending(self, run: Callable[[argparse.Namespace], int]) -> tuple[int, str]:
        """Status and standard error of the command when its subcommand does this."""
        self.patch(conf, "run", run)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            return main(["conf"]), err.getvalue()

    def test_status(self) -> None:
        """
        What the subcommand returns is the status.
        """
        self.assertEqual(self.ending(lambda arguments: 69), (69, ""))

    def test_badConfiguration(self) -> None:
        """
        Configuration that cannot be used gives 78 and a line for each problem.
        """

        def run(arguments: argparse.Namespace) -> int:
            raise ConfigurationError(["a:1: b: c", "a:2: d: e"])

        self.assertEqual(self.ending(run), (78, "a:1: b: c\na:2: d: e\n"))

    def test_failure(self) -> None:
        """
        An error of ours gives 1 and one line, without a traceback.
        """

        def run(arguments: argparse.Namespace) -> int:
            raise SpoolError("the disk is on fire")

        self.assertEqual(self.ending(run), (1, "smtpreuse: the disk is on fire\n"))

    def test_fault(self) -> None:
        """
        A fault of the program is not hidden.
        """

        def run(arguments: argparse.Namespace) -> int:
            raise LookupError

        self.assertRaises(LookupError, self.ending, run)

    def test_usage(self) -> None:
        """
        No subcommand, an unknown one and an unknown option give 2.
        """
        for words in ([], ["nosuch"], ["conf", "--nosuch"]):
            with contextlib.redirect_stderr(io.StringIO()) as err, self.assertRaises(SystemExit) as caught:
                main(words)
            self.assertEqual(caught.exception.code, 2)
            self.assertIn("usage: smtpreuse", err.getvalue())

    def test_help(self) -> None:
        """
        Help names every subcommand.
        """
        with contextlib.redirect_stdout(io.StringIO()) as out, self.assertRaises(SystemExit) as caught:
            main(["--help"])
        self.assertEqual(caught.exception.code, 0)
        for name in ("conf", "demo", "queue", "sessions", "sink", "source", "status"):
            self.assertRegex(out.getvalue(), rf"(?m)^ +{name} ")

    def test_commonOptions(self) -> None:
        """
        Every subcommand takes the common options.
        """
        for name in ("conf", "demo", "queue list", "queue show", "queue flush", "sessions", "sink", "source", "status"):
            with contextlib.redirect_stdout(io.StringIO()) as out, self.assertRaises(SystemExit):
                main([*name.split(), "--help"])
            for option in ("--config FILE", "-o name=value", "--json"):
                self.assertIn(option, out.getvalue(), name)

    def run_child(self, program: str) -> subprocess.CompletedProcess[str]:
        """A Python process that runs this program."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
        )

    def test_light(self) -> None:
        """
        A subcommand that needs no reactor does not wait for Twisted to be imported.
        """
        program = (
            "import sys; from smtpreuse.cli.main import main; main(['conf', '-d', 'relayhost']);"
            "print([name for name in sys.modules if name.partition('.')[0] in ('twisted', 'OpenSSL')])"
        )
        self.assertEqual(self.run_child(program).stdout, "relayhost =\n[]\n")

    def test_outputFull(self) -> None:
        """
        A standard output that takes nothing, or is closed, is a failure with one line that says so.
        """
        for redirection, reason in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
            ended = subprocess.run(
                ["/bin/sh", "-c", f'exec "$0" -m smtpreuse.cli.main conf -d {redirection}', sys.executable],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            self.assertEqual(ended.returncode, 1)
            self.assertRegex(ended.stderr, rf"^smtpreuse: \[Errno \d+\] {reason}\n$")

    def test_readerGone(self) -> None:
        """
        When the reader of its output goes away, the command ends with 1 and says nothing.
        """
        program = (
            "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
            "from smtpreuse.cli.main import main; sys.exit(main(['conf', '-d']))"
        )
        child = self.run_child(program)
        self.assertEqual((child.returncode, child.stderr), (1, ""))
