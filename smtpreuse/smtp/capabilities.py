"""
Reads the reply to EHLO (RFC 5321 section 4.1.1.1).

It does not know what is done with an extension.
"""

from __future__ import annotations

from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.reply import Reply

# Whoever announces more takes everything; keeps the number within 64 bits for those who carry it.
_LARGEST = 2**63 - 1


def parse_ehlo(reply: Reply, discard: frozenset[str]) -> Capabilities:
    """
    @param discard: keywords not to be believed, in any case (C{smtp_discard_ehlo_keywords}).
    @return: what was announced; nothing at all for a reply that is not positive.
    """
    if not reply.positive:
        return Capabilities()
    unwanted = {keyword.upper() for keyword in discard}
    keywords = set()
    size = None
    for line in reply.lines[1:]:
        words = line.upper().split()
        if not words:
            continue
        # "AUTH=LOGIN" is how servers from before RFC 2554 say AUTH.
        keyword = words[0].partition("=")[0]
        if keyword in unwanted:
            continue
        keywords.add(keyword)
        if keyword == "SIZE":
            number = words[1] if len(words) > 1 else ""
            size = min(int(number), _LARGEST) if number.isascii() and number.isdigit() else 0
    return Capabilities(
        esmtp=True,
        pipelining="PIPELINING" in keywords,
        eight_bit="8BITMIME" in keywords,
        starttls="STARTTLS" in keywords,
        size=size,
        keywords=frozenset(keywords),
    )
