"""
Tests of L{smtpreuse.routing.families}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.nexthop import Candidate, Endpoint
from smtpreuse.model.policy import Level, Policy
from smtpreuse.routing.families import balanced, by_family

POLICY = Policy(level=Level.MAY)


def candidates(text: str) -> list[Candidate]:
    """One for each digit, 4 or 6, in this order; C{/} begins the next preference."""
    made, preference = [], 0
    for number, letter in enumerate(text):
        if letter == "/":
            preference += 1
            continue
        address = f"192.0.2.{number}" if letter == "4" else f"2001:db8::{number:x}"
        made.append(Candidate(endpoint=Endpoint(address, 25), host="h", preference=preference, policy=POLICY))
    return made


def families(some: list[Candidate]) -> str:
    """Their families as digits."""
    return "".join("6" if one.endpoint.ipv6 else "4" for one in some)


class ByFamilyTests(SynchronousTestCase):
    """Preference goes before family."""

    def test_preferred(self) -> None:
        """The preferred family goes first among equals only; without one all stays."""
        some = candidates("4646/46")
        self.assertEqual(families(by_family(some, "ipv6")), "664464")
        self.assertEqual(families(by_family(some, "ipv4")), "446646")
        self.assertEqual(by_family(some, "any"), some)
        self.assertEqual(by_family(some[::-1], "any")[-1].preference, 1)


class BalancedTests(SynchronousTestCase):
    """Within a limit both families have their chance (spec 6.1.9)."""

    def test_examples(self) -> None:
        """Half each, the odd one to the family of the first, and places left over to the other."""
        for text, limit, kept in (
            ("464646", 5, "46464"),
            ("646464", 5, "64646"),
            ("66666644444", 5, "66644"),
            ("44444466666", 4, "4466"),
            ("6666666664", 5, "66664"),
            ("4444444446", 5, "44446"),
            ("46", 5, "46"),
            ("44444444", 3, "444"),
            ("66666666", 3, "666"),
            ("6444", 1, "6"),
            ("4666", 1, "4"),
        ):
            self.assertEqual(families(balanced(candidates(text), limit)), kept, text)

    @given(st.text(alphabet="46", max_size=12), st.integers(1, 12))
    def test_always(self, text: str, limit: int) -> None:
        """Never more than the limit, as many as possible, in their order, both families where two fit."""
        some = candidates(text)
        kept = balanced(some, limit)
        self.assertEqual(len(kept), min(limit, len(some)))
        self.assertEqual(kept, [one for one in some if one in kept])
        if limit >= 2:
            self.assertEqual(set(families(kept)), set(text))
