"""
Which destinations share their limits.

Knows neither limits nor sessions. The customers of a large provider have an MX name each and one set of servers behind
them, so the domains that are its alone are one site; others are one site when their MX hosts are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.records import MXRecord
from smtpreuse.model.route import Site

# Characters of a site's name, beside a port and a digest: a domain may have a hundred MX hosts with 253 each.
_LONGEST = 255
# Suffix of MX hosts to name of the site. The suffixes are those that the providers tell their customers to put
# into their MX records.
PROVIDERS = {
    "google.com": "google",
    "googlemail.com": "google",
    "protection.outlook.com": "outlook",
    "mx.microsoft": "outlook",
    "olc.protection.outlook.com": "hotmail",
    "yahoodns.net": "yahoo",
    "icloud.com": "icloud",
    "mimecast.com": "mimecast",
    "mimecast.co.za": "mimecast",
    "pphosted.com": "proofpoint",
    "ppe-hosted.com": "proofpoint-essentials",
    "iphmx.com": "cisco",
    "barracudanetworks.com": "barracuda",
    "messagelabs.com": "messagelabs",
    "trendmicro.com": "trendmicro",
    "trendmicro.eu": "trendmicro",
    "mailcontrol.com": "forcepoint",
    "hornetsecurity.com": "hornetsecurity",
    "antispameurope.com": "hornetsecurity",
    "secureserver.net": "godaddy",
    "emailsrvr.com": "rackspace",
    "messagingengine.com": "fastmail",
    "zoho.com": "zoho",
    "zoho.eu": "zoho",
    "kundenserver.de": "ionos",
    "ionos.com": "ionos",
    "ovh.net": "ovh",
    "gandi.net": "gandi",
    "yandex.net": "yandex",
    "yandex.ru": "yandex",
    "mail.ru": "mailru",
    "qq.com": "qq",
    "mailgun.org": "mailgun",
}


def site_of(nexthop: Nexthop, records: Sequence[MXRecord]) -> Site:
    """
    The site of a nexthop.

    @param records: its MX records; none for a relay host, an address or a domain without any.
    """
    if not records:
        return Site(name=str(nexthop))
    hosts = sorted({record.host for record in records})
    providers = {provider(host) for host in hosts}
    # One host that is not the provider's, and the domain could fail at will in the name of all the others.
    name = (providers.pop() if len(providers) == 1 else None) or _bounded(",".join(hosts))
    return Site(name=name if nexthop.port == 25 else f"{name}:{nexthop.port}")


def _bounded(name: str) -> str:
    """A name that would be too long is cut, and has a digest of the whole behind it."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}...{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def provider(host: str) -> str | None:
    """
    The name of the provider an MX host belongs to, by the longest suffix that is known.

    @param host: in lower case.
    """
    suffix = host
    while suffix:
        name = PROVIDERS.get(suffix)
        if name is not None:
            return name
        suffix = suffix.partition(".")[2]
    return None
