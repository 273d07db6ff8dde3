"""
Tests of C{smtpreuse.config.load} and of the value it makes, C{smtpreuse.config.settings}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config import load as module
from smtpreuse.config.load import control_socket_of, default_settings, read_settings, settings_of
from smtpreuse.config.parameters import BY_NAME, PARAMETERS
from smtpreuse.config.settings import Settings
from smtpreuse.errors import ConfigurationError
from smtpreuse.model.nexthop import Nexthop


class SettingsTests(SynchronousTestCase):
    """
    Settings have an attribute for each parameter of the table, with the type that its kind gives.
    """

    def test_attributes(self) -> None:
        """
        Names and types agree with the table; nothing is there that it does not have.
        """
        attributes = {attribute.name: attribute.type for attribute in fields(Settings) if attribute.default is not None}
        for name in ("_texts", "_origins"):
            attributes.pop(name)
        self.assertEqual(attributes, {parameter.name: parameter.kind.annotation for parameter in PARAMETERS})

    def test_defaults(self) -> None:
        """
        Without a file the defaults of the table are in force.
        """
        settings = settings_of()
        self.assertEqual(settings.smtp_connection_cache_time_limit, 15.0)
        self.assertEqual(settings.content_cache_size, 16 * 1024 * 1024)
        self.assertEqual(settings.maximal_queue_lifetime, 5 * 86400.0)
        self.assertEqual(settings.control_socket, "/var/spool/smtpreuse/control")
        self.assertEqual(settings.myorigin, "host.example.com")
        self.assertEqual(settings.mydomain, "example.com")
        self.assertEqual(settings.smtpd_client_event_limit_exceptions, settings.mynetworks)
        self.assertTrue(settings.mynetworks.contains("::1"))
        self.assertIsNone(settings.file)

    def test_values(self) -> None:
        """
        Texts become values, and others that mention them follow.
        """
        settings = settings_of(myhostname="a.example.net", relayhost="[$mydomain]:587", soft_bounce="yes")
        self.assertEqual(settings.relayhost, Nexthop(host="example.net", port=587, literal=True))
        self.assertEqual(settings.smtp_helo_name, "a.example.net")
        self.assertTrue(settings.soft_bounce)

    def test_equality(self) -> None:
        """
        Settings are equal when all values are, wherever they stand.
        """
        self.assertEqual(settings_of(relayhost="a.example"), settings_of(relayhost="A.EXAMPLE"))
        self.assertEqual(settings_of(), settings_of(soft_bounce="no"))
        self.assertNotEqual(settings_of(), settings_of(soft_bounce="yes"))

    def test_source(self) -> None:
        """
        Each value knows where it was set.
        """
        settings = settings_of(soft_bounce="no")
        self.assertEqual(settings.source("soft_bounce"), "command line")
        self.assertEqual(settings.source("relayhost"), "default")

    def test_text(self) -> None:
        """
        Texts are shown without C{$names}, file names whole.
        """
        settings = settings_of(queue_directory="q", smtp_quit_timeout="$smtp_rset_timeout")
        self.assertEqual(settings.text("control_socket"), os.path.abspath("q/control"))
        self.assertEqual(settings.text("smtp_quit_timeout"), "20s")

    def test_defaultSettings(self) -> None:
        """
        Defaults can be had whatever is configured; the system's name is in them.
        """
        settings = default_settings()
        self.assertEqual({settings.source(name) for name in BY_NAME}, {"default"})
        self.assertIn(".", settings.myhostname)

    def test_systemName(self) -> None:
        """
        The resolver is asked only for a name without a domain, and believed only when it completes that name.
        """
        for short, full, wanted in (
            ("a.example", None, "a.example"),
            ("a", "a.example", "a.example"),
            ("a", "localhost.localdomain", "a"),
            ("a", "a", "a"),
        ):
            self.patch(socket, "gethostname", lambda short=short: short)
            self.patch(socket, "getfqdn", lambda name, full=full: full or self.fail("asked"))
            self.assertEqual(module._system_name(), wanted)


class ReadTests(SynchronousTestCase):
    """
    The configuration is read from one file and from the command line, and all its errors are told at once.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.file = self.directory / "main.cf"
        self.patch(module, "SYSTEM_FILE", str(self.directory / "none"))

    def read(self, text: str, overrides: Sequence[str] = ()) -> Settings:
        """Settings of a file with this text."""
        self.file.write_text(text)
        return read_settings(str(self.file), overrides, {})

    def problems(self, text: str, overrides: Sequence[str] = ()) -> list[str]:
        """The errors of a file with this text, without the names of the directory and what is allowed."""
        with self.assertRaises(ConfigurationError) as caught:
            self.read(text, overrides)
        return [
            problem.replace(f"{self.directory}/", "").partition(" (allowed")[0] for problem in caught.exception.problems
        ]

    def test_source(self) -> None:
        """
        Values know the line of their file; of two assignments the later counts.
        """
        settings = self.read(
            "# x\nsoft_bounce = no\nmyhostname = a.example\nsoft_bounce\n =\n yes\n".replace("\n =", " =")
        )
        self.assertTrue(settings.soft_bounce)
        self.assertEqual(settings.source("soft_bounce"), f"{self.file}:4")
        self.assertEqual(settings.source("relayhost"), "default")
        self.assertEqual(settings.file, str(self.file))

    def test_override(self) -> None:
        """
        The command line goes before the file, its later options before the earlier.
        """
        settings = self.read("relayhost = a.example\n", ["relayhost=b.example", "relayhost = c.example"])
        self.assertEqual(settings.relayhost, Nexthop(host="c.example"))
        self.assertEqual(settings.source("relayhost"), "command line")

    def test_searchOrder(self) -> None:
        """
        An argument goes before the environment, that before the system's file, that before nothing.
        """
        for name in ("argument", "environment", "system"):
            (self.directory / name).write_text(f"relayhost = {name}.example\n")
        environ = {"SMTPREUSE_CONFIG": str(self.directory / "environment")}

        def found(path: str | None, environ: dict[str, str]) -> str:
            return str(read_settings(path, (), environ).relayhost)

        self.assertEqual(found(None, {}), "None")
        self.patch(module, "SYSTEM_FILE", str(self.directory / "system"))
        self.assertEqual(found(None, {}), "system.example")
        self.assertEqual(found(None, {"SMTPREUSE_CONFIG": ""}), "system.example")
        self.assertEqual(found(None, environ), "environment.example")
        self.assertEqual(found(str(self.directory / "argument"), environ), "argument.example")

    def test_byteOrderMark(self) -> None:
        """
        What some editors put before the text is none of it.
        """
        self.file.write_bytes(b"\xef\xbb\xbfrelayhost = a.example\n")
        self.assertEqual(str(read_settings(str(self.file), (), {}).relayhost), "a.example")

    def test_unreadable(self) -> None:
        """
        A file that is named and cannot be read is an error, as is one that is not text.
        """
        with self.assertRaises(ConfigurationError) as caught:
            read_settings(None, ["soft_bounce=maybe"], {"SMTPREUSE_CONFIG": str(self.file)})
        self.assertEqual(
            caught.exception.problems,
            [
                f"{self.file}: cannot be read (No such file or directory)",
                "command line: soft_bounce: neither yes nor no: maybe (allowed: yes, no)",
            ],
        )
        self.file.write_bytes(b"relayhost = \xff\n")
        with self.assertRaises(ConfigurationError) as caught:
            read_settings(str(self.file), (), {})
        self.assertEqual(caught.exception.problems, [f"{self.file}: is not UTF-8 (octet 12)"])

    def test_paths(self) -> None:
        """
        Relative file names are relative to the file they stand in, defaults that mention them too.
        """
        (self.directory / "transport").write_text("a.example discard:\n")
        settings = self.read("queue_directory = ../spool\ntransport_maps = texthash:transport\n")
        spool = str(self.directory.parent / "spool")
        self.assertEqual((settings.queue_directory, settings.control_socket), (spool, f"{spool}/control"))
        self.assertEqual(settings.transport_maps.get("a.example"), "discard:")

    def test_relativeFile(self) -> None:
        """
        That holds as well when the file itself is named relative to the current directory.
        """
        self.file.write_text("queue_directory = q\n")
        settings = read_settings(os.path.relpath(self.file), (), {})
        self.assertEqual(settings.queue_directory, str(self.directory / "q"))

    def test_pathsOfTheCommandLine(self) -> None:
        """
        Relative file names of the command line are relative to the current directory, whoever mentions them.
        """
        settings = self.read("control_socket = $queue_directory/c\n", ["queue_directory=q", "maillog_file="])
        self.assertEqual(settings.control_socket, os.path.abspath("q/c"))
        self.assertEqual(settings.maillog_file, "")
        settings = self.read("", ["maillog_file=$queue_directory/log"])
        self.assertEqual(settings.maillog_file, "/var/spool/smtpreuse/log")

    def test_allErrors(self) -> None:
        """
        Whatever is wrong, wherever it stands, it is told in one go, each error with its line.
        """
        self.assertEqual(
            self.problems(
                " lost\nrelayhst = a.example\nsmtp_sasl_auth_enable = yes\nmynetworks = a,\n  b\n"
                "smtp_helo_name = $none\n"
                "smtp_tls_security_level = dane\ntransport_maps = texthash:none\nsmtpd_timeout = $smtp_rset_timeout\n"
                "smtp_rset_timeout = $smtpd_timeout\nminimal_backoff_time = 2h\n",
                ["soft_bounce", "session_limit=0"],
            ),
            [
                "main.cf:1: a line that begins with white space continues nothing",
                "command line: no '=' behind the name: soft_bounce",
                "main.cf:2: relayhst: unknown parameter: a.example (did you mean relayhost?)",
                "main.cf:3: smtp_sasl_auth_enable: a parameter of Postfix that is not supported (yet): yes",
                "main.cf:4: mynetworks: not an address or network "
                "('a' does not appear to be an IPv4 or IPv6 network): a",
                "main.cf:4: mynetworks: not an address or network "
                "('b' does not appear to be an IPv4 or IPv6 network): b",
                "main.cf:9: smtpd_timeout: its $names lead in a circle: "
                "smtpd_timeout -> smtp_rset_timeout -> smtpd_timeout",
                "main.cf:8: transport_maps: cannot be read (No such file or directory): none",
                "main.cf:7: smtp_tls_security_level: does not work yet: dane",
                "command line: session_limit: out of bounds: 0",
                "main.cf:6: smtp_helo_name: refers to a name that is not defined: $none",
                "main.cf:10: smtp_rset_timeout: its $names lead in a circle: "
                "smtp_rset_timeout -> smtpd_timeout -> smtp_rset_timeout",
                "main.cf:11: minimal_backoff_time: more than maximal_backoff_time: 2h",
            ],
        )

    def test_form(self) -> None:
        """
        An error names file, line, parameter, what is wrong, the value, and what is allowed.
        """
        with self.assertRaises(ConfigurationError) as caught:
            self.read("\nsmtp_tls_security_level = must\n")
        self.assertEqual(
            str(caught.exception),
            f"{self.file}:2: smtp_tls_security_level: not one of its values: must "
            "(allowed: none, may, encrypt; empty for none)",
        )

    def test_nothingNear(self) -> None:
        """
        An unknown name that resembles none gets no hint.
        """
        self.assertEqual(self.problems("qqq = 1\n"), ["main.cf:1: qqq: unknown parameter: 1"])

    def test_twins(self) -> None:
        """
        Postfix's LMTP parameters are known, and not supported.
        """
        self.assertEqual(
            self.problems("lmtp_connect_timeout = 1\nlmtp_tls_CAfile = x\n"),
            [
                "main.cf:1: lmtp_connect_timeout: a parameter of Postfix that is not supported (yet): 1",
                "main.cf:2: lmtp_tls_CAfile: a parameter of Postfix that is not supported (yet): x",
            ],
        )

    def test_ownNames(self) -> None:
        """
        A name of the administrator's own may be defined where a value refers to it.
        """
        settings = self.read("our_net = 192.0.2.0/24\nmynetworks = 127.0.0.1, $our_net\n")
        self.assertTrue(settings.mynetworks.contains("192.0.2.9"))

    def test_ownNamesThroughOthers(self) -> None:
        """
        Also where another name of that kind refers to it; what no parameter's value leads to does nothing, and is
        unknown: a typing error, though it mentions a name that there is.
        """
        settings = self.read("a = 192.0.2.0/24\nb = $a\nmynetworks = $b\n")
        self.assertTrue(settings.mynetworks.contains("192.0.2.9"))
        self.assertEqual(
            self.problems("mynetwork = 192.0.2.0/24 $mynetwork\na = $b\nb = $a\n"),
            [
                "main.cf:1: mynetwork: unknown parameter: 192.0.2.0/24 $mynetwork (did you mean mynetworks?)",
                "main.cf:2: a: unknown parameter: $b",
                "main.cf:3: b: unknown parameter: $a",
            ],
        )

    def test_ownNamesUnused(self) -> None:
        """
        One that is wrong is an error even where the value that mentions it has no use for it now.
        """
        self.assertEqual(
            self.problems("relayhost = ${soft_bounce:$a}\na = $b\nb = $a\n"),
            [
                "main.cf:2: a: its $names lead in a circle: a -> b -> a",
                "main.cf:3: b: its $names lead in a circle: b -> a -> b",
            ],
        )
        self.assertEqual(
            self.problems("relayhost = $a\na = $b\n"),
            ["main.cf:1: relayhost: refers to a name that is not defined: $b"],
        )

    def test_postfixForms(self) -> None:
        """
        What Postfix takes for these parameters is taken, and means the same or what the table says.
        """
        settings = self.read("smtp_tls_security_level =\nsmtp_dns_support_level =\nsmtp_tls_loglevel = 4\n")
        self.assertEqual((settings.smtp_tls_security_level, settings.smtp_dns_support_level), ("none", "enabled"))
        self.assertEqual(settings.smtp_tls_loglevel, 4)

    def test_originFromFile(self) -> None:
        """
        C{myorigin} may name a file, as Debian has it; who refers to it gets what the file says.
        """
        name = self.directory / "mailname"
        name.write_text("Mail.Example.com\nmore\n")
        settings = self.read(f"myorigin = {name}\nsmtp_helo_name = x.$myorigin\n")
        self.assertEqual((settings.myorigin, settings.smtp_helo_name), ("mail.example.com", "x.Mail.Example.com"))
        name.write_text("$x y\n")
        self.assertEqual(
            self.problems(f"myorigin = {name}\n"), ["main.cf:1: myorigin: not a host or domain name: $x y"]
        )
        name.unlink()
        self.assertEqual(
            self.problems(f"myorigin = {name}\n"),
            ["main.cf:1: myorigin: cannot be read (No such file or directory): mailname"],
        )

    def test_checks(self) -> None:
        """
        Others may look at the whole, and their problems are told with the rest.
        """
        self.file.write_text("soft_bounce = 1\nrelayhost = a.example\n")

        def check(settings: Settings) -> list[str]:
            return [f"{settings.source('relayhost')}: relayhost: seen: {settings.relayhost}"]

        with self.assertRaises(ConfigurationError) as caught:
            read_settings(str(self.file), (), {}, checks=[check])
        self.assertEqual(
            caught.exception.problems,
            [
                f"{self.file}:1: soft_bounce: neither yes nor no: 1 (allowed: yes, no)",
                f"{self.file}:2: relayhost: seen: a.example",
            ],
        )
        self.assertRaises(ConfigurationError, read_settings, None, (), {}, checks=[check])

    def test_elsewhere(self) -> None:
        """
        Names given with a current directory are relative to that, wherever the process has gone.
        """
        directory = Path(self.mktemp()).absolute()
        (directory / "etc").mkdir(parents=True)
        (directory / "etc" / "main.cf").write_text("queue_directory = spool\n")
        settings = read_settings(
            "etc/main.cf", ["control_socket=run/control"], environ={}, current=str(directory)
        )
        self.assertEqual(settings.queue_directory, str(directory / "etc" / "spool"))
        self.assertEqual(settings.control_socket, str(directory / "run" / "control"))
        self.assertEqual(settings.source("queue_directory"), "etc/main.cf:1")


class ControlSocketTests(SynchronousTestCase):
    """
    Where a service is reached is found whatever else is wrong.
    """

    def test_bad(self) -> None:
        """
        With errors elsewhere in the file, and on the command line.
        """
        config = self.mktemp()
        Path(config).write_text("no_such_parameter = 1\nqueue_directory = /var/q\nsoft_bounce = perhaps\n")
        self.assertEqual(control_socket_of(config, ["="], environ={}), "/var/q/control")
        self.assertEqual(control_socket_of(config, ["control_socket=/x"], environ={}), "/x")

    def test_default(self) -> None:
        """
        What cannot be read is not set.
        """
        self.assertEqual(control_socket_of("/nonexistent/main.cf", environ={}), "/var/spool/smtpreuse/control")
