"""Where the receivers that shipped rules are about take their mail, for whoever cannot ask the DNS.

Only to show what would hold; mail is never sent by it, and the DNS has the last word. One host each
is enough: rules match a site by any of its hosts.
"""

from collections.abc import Mapping
from typing import Final

_OF_HOST: Final[Mapping[str, tuple[str, ...]]] = {
    "gmail-smtp-in.l.google.com": ("gmail.com", "googlemail.com"),
    "mta5.am0.yahoodns.net": ("yahoo.com", "ymail.com", "rocketmail.com"),
    "mx-eu.mail.am0.yahoodns.net": ("yahoo.de", "yahoo.fr", "yahoo.co.uk", "yahoo.it", "yahoo.es"),
    "mx-aol.mail.gm0.yahoodns.net": ("aol.com", "aol.de", "aol.co.uk"),
    "outlook-com.olc.protection.outlook.com": ("outlook.com",),
    "hotmail-com.olc.protection.outlook.com": ("hotmail.com",),
    "live-com.olc.protection.outlook.com": ("live.com",),
    "msn-com.olc.protection.outlook.com": ("msn.com",),
    "eur.olc.protection.outlook.com": ("outlook.de", "hotmail.de", "live.de", "hotmail.fr"),
    "mx01.mail.icloud.com": ("icloud.com", "me.com", "mac.com"),
    "mx1h1.comcast.net": ("comcast.net",),
    "smtp-in.orange.fr": ("orange.fr", "wanadoo.fr"),
    "mx00.emig.gmx.net": ("gmx.de", "gmx.net", "gmx.at", "gmx.ch"),
    "mx00.gmx.net": ("gmx.com",),
    "mx-ha02.web.de": ("web.de",),
}
_HOST_OF: Final = {domain: host for host, domains in _OF_HOST.items() for domain in domains}


def usual_host(domain: str) -> str | None:
    """Return an MX host that a domain (lower-case A-labels) is known to have; None: not known."""
    return _HOST_OF.get(domain)


def known_domains() -> tuple[str, ...]:
    """Return the domains that something is known of."""
    return tuple(_HOST_OF)
