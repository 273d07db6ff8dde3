"""
IPv4 and IPv6 among the candidates of a destination: which goes first, and how many of each.

Source: C{smtp_address_preference} and C{smtp_balance_inet_protocols} (always on here), Postfix's C{smtp_addr.c}.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpreuse.model.nexthop import Candidate


def by_family(candidates: Sequence[Candidate], preferred: str) -> list[Candidate]:
    """
    By preference; among equals the preferred family goes first, and all else stays as it is.

    @param preferred: C{ipv4}, C{ipv6} or C{any}.
    """

    def rank(candidate: Candidate) -> tuple[int, bool]:
        return candidate.preference, preferred != "any" and candidate.endpoint.ipv6 != (preferred == "ipv6")

    return sorted(candidates, key=rank)


def balanced(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """
    The first candidates, with both families among them where both are there: half of them each, the odd place for the
    family of the first; a family that has fewer leaves its places to the other. Their order stays.

    @param limit: how many, at least 1.
    """
    six = sum(candidate.endpoint.ipv6 for candidate in candidates)
    four = len(candidates) - six
    if len(candidates) <= limit:
        return list(candidates)
    if six <= limit // 2:
        most_six, most_four = six, limit - six
    elif four <= limit // 2:
        most_six, most_four = limit - four, four
    else:
        first_is_six = candidates[0].endpoint.ipv6
        most_six = limit // 2 + (limit % 2 if first_is_six else 0)
        most_four = limit - most_six
    places = {True: most_six, False: most_four}
    kept: list[Candidate] = []
    for candidate in candidates:
        if places[candidate.endpoint.ipv6] > 0:
            places[candidate.endpoint.ipv6] -= 1
            kept.append(candidate)
    return kept
