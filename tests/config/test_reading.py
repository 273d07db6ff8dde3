"""
Tests of C{smtpreuse.config.reading}; what is wrong with a whole file is tested with C{smtpreuse.config.load}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import settings_of
from smtpreuse.config.maincf import Assignment
from smtpreuse.config.reading import read
from smtpreuse.errors import ConfigurationError


class NameTests(SynchronousTestCase):
    """
    The host's name and domain come from each other and from the system, as in Postfix.
    """

    def names(self, system_name: str, **values: str) -> tuple[str, str]:
        """C{myhostname} and C{mydomain} on a system of this name."""
        assignments = [Assignment(name=name, value=value, origin="x:1") for name, value in values.items()]
        texts = read(assignments, directory="/", current="/", system_name=lambda: system_name).texts
        return texts["myhostname"], texts["mydomain"]

    def test_fullName(self) -> None:
        """
        A system's full name gives both.
        """
        self.assertEqual(self.names("a.b.example"), ("a.b.example", "b.example"))

    def test_shortName(self) -> None:
        """
        A name without a domain gets one: the configured one, else C{localdomain}.
        """
        self.assertEqual(self.names("a"), ("a.localdomain", "localdomain"))
        self.assertEqual(self.names("a", mydomain="b.example"), ("a.b.example", "b.example"))

    def test_configured(self) -> None:
        """
        What is set goes before what the system says, which is not asked then.
        """
        self.assertEqual(self.names("x.y", myhostname="a.b.example"), ("a.b.example", "b.example"))
        self.assertEqual(self.names("x.y", myhostname="a"), ("a", "localdomain"))
        self.assertEqual(
            self.names("x.y", myhostname="a.$mydomain", mydomain="c.example"), ("a.c.example", "c.example")
        )
        read(
            [Assignment(name="myhostname", value="a.example", origin="x:1")],
            directory="/",
            current="/",
            system_name=lambda: self.fail("the system was asked"),
        )

    def test_eachFromTheOther(self) -> None:
        """
        A name that wants the domain, which is to come from the name, is an error at the name, told once.
        """
        with self.assertRaises(ConfigurationError) as caught:
            settings_of(myhostname="a.$mydomain")
        self.assertEqual(
            caught.exception.problems,
            [
                "command line: myhostname: refers to a name that is not defined: $mydomain "
                "(allowed: a host or domain name)"
            ],
        )

    def test_badSystemName(self) -> None:
        """
        A system's name that cannot be one of a host is told as the default's problem.
        """
        problems = read([], directory="/", current="/", system_name=lambda: "a b.example").problems
        self.assertIn(
            "default: myhostname: not a host or domain name: a b.example (allowed: a host or domain name)", problems
        )
