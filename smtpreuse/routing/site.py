"""
Which destinations share their limits.

Knows neither limits nor sessions. The customers of a large provider have an MX name each and one set of servers behind
them, so its domains are one site; others are one site when their MX hosts are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.records import MXRecord
from smtpreuse.model.route import Site

# Suffix of the best MX host to name of the site. The suffixes are those that the providers tell their customers to put
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
    best = min(records, key=lambda record: (record.preference, record.host))
    name = provider(best.host) or ",".join(sorted({record.host for record in records}))
    return Site(name=name if nexthop.port == 25 else f"{name}:{nexthop.port}")


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
