"""
What a user gets from C{pip install}. These tests run the installed copy, as users do, from a directory that holds
nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import missing

ROOT = Path(__file__).resolve().parent.parent


def outside(*command: str, directory: str) -> subprocess.CompletedProcess[str]:
    """Run a command where neither the working directory nor C{PYTHONPATH} leads to this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)


class InstalledTests(SynchronousTestCase):
    """The installed package gives C{twistd} its command, and nobody else anything."""

    def setUp(self) -> None:
        self.empty = self.mktemp()
        os.makedirs(self.empty)
        if outside(sys.executable, "-c", "import smtpreuse", directory=self.empty).returncode:
            raise missing("an installed copy of smtpreuse (tox makes one)")

    def test_twistd_finds_the_command(self) -> None:
        """C{twistd --help} lists the command."""
        twistd = os.path.join(sysconfig.get_path("scripts"), "twistd")
        shown = outside(twistd, "--help", directory=self.empty)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        lines = [line.split(None, 1) for line in shown.stdout.splitlines()]
        self.assertIn(["smtpreuse", "Delivers mail by SMTP, many messages over each TLS"], lines)
        self.assertEqual(shown.stderr, "")

    def test_command_has_its_options(self) -> None:
        """C{twistd smtpreuse --help} shows the options of the service."""
        twistd = os.path.join(sysconfig.get_path("scripts"), "twistd")
        shown = outside(twistd, "smtpreuse", "--help", directory=self.empty)
        for option in ("--config", "--listen", "--json-log", "--check"):
            self.assertIn(option, shown.stdout)

    def test_console_script(self) -> None:
        """C{smtpreuse --help} lists the subcommands."""
        script = os.path.join(sysconfig.get_path("scripts"), "smtpreuse")
        shown = outside(script, "--help", directory=self.empty)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        for subcommand in ("demo", "sink", "source", "conf", "queue", "sessions", "status"):
            self.assertIn(subcommand, shown.stdout)

    def test_modules(self) -> None:
        """
        The package brings its own modules and the plugin, nothing else: no tests, and no C{__init__.py} under twisted,
        which would hide Twisted's own plugins.
        """
        program = "from importlib.metadata import files; print(*files('smtpreuse'), sep='\\n')"
        shown = outside(sys.executable, "-c", program, directory=self.empty)
        modules = [line for line in shown.stdout.splitlines() if line.endswith(".py")]
        self.assertIn("smtpreuse/tap.py", modules)
        foreign = [module for module in modules if not module.startswith("smtpreuse/")]
        self.assertEqual(foreign, ["twisted/plugins/smtpreuse_plugin.py"])


class PluginTests(SynchronousTestCase):
    """Every C{twistd --help} of the machine imports the plugin: it must cost next to nothing."""

    def test_imports_nothing_heavy(self) -> None:
        """The plugin imports no module of ours, no reactor and no TLS."""
        program = (
            "import sys; import twisted.plugins.smtpreuse_plugin;"
            "print([name for name in sys.modules"
            " if name.split('.')[0] in ('OpenSSL', 'cryptography', 'dns', 'msgspec', 'smtpreuse')"
            " or name == 'twisted.internet.reactor'])"
        )
        shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual((shown.stdout, shown.stderr), ("[]\n", ""))

    def test_names_the_service(self) -> None:
        """The plugin names the module that holds options and service."""
        from twisted.plugins import smtpreuse_plugin  # type: ignore[attr-defined]  # a namespace: mypy sees one part

        maker = smtpreuse_plugin.smtpreuse
        self.assertEqual((maker.tapname, maker.module), ("smtpreuse", "smtpreuse.tap"))


class ToolingTests(SynchronousTestCase):
    """What the README says is what the machines run."""

    def test_ci_runs_the_readme_command(self) -> None:
        """The command that C{.ci/run} runs stands in the README."""
        command = "python3 -m venv .venv && .venv/bin/pip install -q tox && .venv/bin/tox"
        self.assertIn(command, (ROOT / ".ci" / "run").read_text())
        self.assertIn(command, (ROOT / "README.md").read_text())
