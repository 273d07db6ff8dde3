"""
Tests of C{smtpreuse.config.checks}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.errors import ConfigurationError


class CheckTests(SynchronousTestCase):
    """
    Settings that are right each by itself may still not go together.
    """

    def problems(self, **values: str) -> list[str]:
        """What is wrong with these."""
        try:
            settings_of(**values)
        except ConfigurationError as error:
            return error.problems
        return []

    def test_controlSocket(self) -> None:
        """
        A path that no UNIX socket can have is refused with that reason; the longest that it can have is not.
        """
        longest = "/" + "a" * 106
        self.assertEqual(self.problems(control_socket=longest), [])
        self.assertEqual(
            self.problems(control_socket=longest + "b"),
            [
                "command line: control_socket: a path of 108 octets is too long for a UNIX socket: "
                f"{longest}b (allowed: at most 107 octets)"
            ],
        )
        self.assertEqual(len(self.problems(control_socket="/" + "ä" * 54)), 1)
        self.assertEqual(
            self.problems(queue_directory="/" + "a" * 100)[0].partition(" (")[0],
            f"default: control_socket: a path of 109 octets is too long for a UNIX socket: /{'a' * 100}/control",
        )

    def test_placesOfTheQueue(self) -> None:
        """
        No file of the service takes the place of one of its queue's, whichever way its path is written.
        """
        for name in ("control_socket", "maillog_file"):
            for place in ("queue.db", "queue.db-wal", "queue.db-shm", "lock", "content", "content/log", "../q/lock"):
                (found,) = self.problems(queue_directory="/q", **{name: f"/q/{place}"})
                path = f"/q/{place}".replace("/../q", "")
                self.assertEqual(
                    found, f"command line: {name}: a place of the queue's own: {path} (allowed: any other)"
                )
            for place in ("/q/log", "/q/contents", "/r/lock", "/lock"):
                self.assertEqual(self.problems(queue_directory="/q", **{name: place}), [])

    def test_placesThroughLinks(self) -> None:
        """
        A link that leads there is seen through.
        """
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "link").symlink_to(directory / "spool")
        found = self.problems(queue_directory=str(directory / "spool"), maillog_file=str(directory / "link" / "lock"))
        self.assertIn("maillog_file: a place of the queue's own", found[-1])

    def test_backoff(self) -> None:
        """
        The shortest pause is not longer than the longest.
        """
        self.assertEqual(self.problems(minimal_backoff_time="10s", maximal_backoff_time="10s"), [])
        self.assertEqual(
            self.problems(minimal_backoff_time="11s", maximal_backoff_time="10s"),
            ["command line: minimal_backoff_time: more than maximal_backoff_time: 11s (allowed: at most 10s)"],
        )

    def test_certificate(self) -> None:
        """
        TLS is not offered to clients with nothing to show, whichever of the two parameters was forgotten.
        """
        self.assertEqual(self.problems(smtpd_tls_security_level="none"), [])
        self.assertEqual(self.problems(smtpd_tls_security_level=""), [])
        for level in ("may", "encrypt"):
            for file in ("smtpd_tls_cert_file", "smtpd_tls_chain_files"):
                self.assertEqual(self.problems(smtpd_tls_security_level=level, **{file: "/nowhere"}), [])
            self.assertEqual(
                self.problems(smtpd_tls_security_level=level, smtpd_tls_key_file="/nowhere"),
                [
                    "command line: smtpd_tls_security_level: without a certificate in smtpd_tls_chain_files or "
                    f"smtpd_tls_cert_file: {level} (allowed: none)"
                ],
            )

    def test_transports(self) -> None:
        """
        Right-hand sides of transport tables are looked at.
        """
        good = (
            "inline:{a=smtp:, b=smtp:[c.example]:587, d=discard:, {e=error:5.1.1 no}, f=hold:x} static:smtp:g.example"
        )
        self.assertEqual(self.problems(transport_maps=good), [])
        found = self.problems(transport_maps="inline:{a=smtp:[, b=lmtp:x, c=[d]} static:x")
        self.assertEqual(len(found), 4)
        self.assertEqual(
            found[1],
            "command line: transport_maps: not a transport that works, in inline:{a=smtp:[, b=lmtp:x, c=[d]} for b: "
            "lmtp:x (allowed: smtp:nexthop, discard:, error:text, hold:text)",
        )
        self.assertIn("in static:x for every key: x", found[3])

    def test_nothingConcluded(self) -> None:
        """
        From a value that has a problem of its own no further one is made.
        """
        for values in (
            {"maximal_backoff_time": "x", "minimal_backoff_time": "2h"},
            {"queue_directory": "", "control_socket": "/c"},
            {"transport_maps": "hash:x"},
            {"smtpd_tls_security_level": "must"},
        ):
            self.assertEqual(len(self.problems(**values)), 1)
