"""
Tests of L{smtpreuse.tls.protocols}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.tls.protocols import NUMBERS, Protocols

NAMES = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


class ProtocolsTests(SynchronousTestCase):
    """
    A list of protocols means what Postfix means by it.
    """

    def allowed(self, text: str) -> list[str]:
        """The names that are allowed."""
        protocols = Protocols.parse(text)
        return [name for name in NAMES if protocols.allows(NUMBERS[name.lower()])]

    def test_meanings(self) -> None:
        """Bounds, exclusions and inclusions, alone and together, with any separator."""
        for text, names in (
            ("", NAMES),
            (">=TLSv1", NAMES[2:]),
            (">= TLSv1.2", NAMES[4:]),
            ("<=TLSv1.2", NAMES[:5]),
            (">=TLSv1.1, <=TLSv1.2", ["TLSv1.1", "TLSv1.2"]),
            ("!SSLv2, !SSLv3", NAMES[2:]),
            ("!SSLv2:!SSLv3 !TLSv1", NAMES[3:]),
            ("TLSv1.2 TLSv1.3", NAMES[4:]),
            ("TLSv1.2, TLSv1.3, !TLSv1.3", ["TLSv1.2"]),
            (">=tlsv1.3", ["TLSv1.3"]),
            (">=TLSv1, !TLSv1.1", ["TLSv1", "TLSv1.2", "TLSv1.3"]),
        ):
            self.assertEqual(self.allowed(text), names, text)

    def test_errors(self) -> None:
        """An unknown name, or nothing left, is an error that quotes the list."""
        for text in ("TLSv9", ">=", "!", "!TLSv1.4", ">=TLSv1.3 <=TLSv1.2", "TLSv1 !TLSv1", "=TLSv1"):
            error = self.assertRaises(ValueError, Protocols.parse, text)
            self.assertIn(repr(text), str(error))

    @given(st.text(alphabet="TLSv1.23!<>=, :", max_size=30))
    def test_any_text(self, text: str) -> None:
        """Whatever the text, it is read or refused."""
        try:
            names = self.allowed(text)
        except ValueError:
            return
        self.assertTrue(names)
