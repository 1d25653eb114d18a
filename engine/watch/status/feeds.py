"""`/history.rss` and `/history.atom`: what happened, for feed readers.

An item is an entry with all that was said of it; its identity stays when something is added, so
that readers show it as changed and not as another one.
"""

import re
from email.utils import formatdate
from typing import Final
from xml.etree import ElementTree as ET

from engine.watch.status.page_words import PAGE_WORDS, read_time
from engine.watch.status.records import Entry, Kind
from engine.watch.status.views import Picture, Views
from protocols.languages import Language
from protocols.timestamps import time_text

RSS_TYPE: Final = "application/rss+xml; charset=utf-8"
ATOM_TYPE: Final = "application/atom+xml; charset=utf-8"
ITEMS_MAX: Final = 50
ATOM: Final = "http://www.w3.org/2005/Atom"
NO_CHARACTER: Final = re.compile("[^\\t\\n -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")

ET.register_namespace("atom", ATOM)


def rss(picture: Picture, views: Views, language: Language) -> bytes:
    """Return the feed as RSS 2.0."""
    root = ET.Element("rss", version="2.0")
    channel = ET.SubElement(root, "channel")
    words = PAGE_WORDS[language]
    title = words["title"].replace("{name}", views.name)
    _add(channel, "title", title)
    _add(channel, "link", f"{views.url}/status")
    _add(channel, "description", title)
    _add(channel, "language", language)
    _add(channel, "lastBuildDate", formatdate(picture.updated_unix_ms() // 1000, usegmt=True))
    own = {
        "href": f"{views.url}/history.rss?lang={language}",
        "rel": "self",
        "type": "application/rss+xml",
    }
    ET.SubElement(channel, f"{{{ATOM}}}link", own)
    for entry in picture.entries[:ITEMS_MAX]:
        incident = entry.incident
        item = ET.SubElement(channel, "item")
        _add(item, "title", incident.title.in_(language))
        _add(item, "link", views.link(entry))
        guid = ET.SubElement(item, "guid", isPermaLink="false")
        guid.text = _identity(views, entry)
        _add(item, "pubDate", formatdate(incident.created_unix_ms // 1000, usegmt=True))
        _add(item, "description", _story(entry, language))
    return _octets(root)


def atom(picture: Picture, views: Views, language: Language) -> bytes:
    """Return the feed as Atom (RFC 4287)."""
    root = ET.Element("feed", {"xmlns": ATOM, "xml:lang": language})
    _add(root, "id", f"{views.url}/history.atom")
    _add(root, "title", PAGE_WORDS[language]["title"].replace("{name}", views.name))
    _add(root, "updated", time_text(picture.updated_unix_ms()))
    ET.SubElement(root, "link", rel="self", href=f"{views.url}/history.atom?lang={language}")
    ET.SubElement(root, "link", rel="alternate", href=f"{views.url}/status")
    _add(ET.SubElement(root, "author"), "name", views.name)
    for entry in picture.entries[:ITEMS_MAX]:
        incident = entry.incident
        item = ET.SubElement(root, "entry")
        _add(item, "id", _identity(views, entry))
        _add(item, "title", incident.title.in_(language))
        ET.SubElement(item, "link", rel="alternate", href=views.link(entry))
        _add(item, "published", time_text(incident.created_unix_ms))
        _add(item, "updated", time_text(incident.updated_unix_ms))
        content = ET.SubElement(item, "content", type="html")
        content.text = _story(entry, language)
    return _octets(root)


def _story(entry: Entry, language: Language) -> str:
    """All updates, newest first, as HTML that stands escaped in the feed."""
    words = PAGE_WORDS[language]
    parts: list[str] = []
    for update in reversed(entry.updates):
        is_announcement = entry.incident.kind is Kind.ANNOUNCEMENT
        stage = words["announcement" if is_announcement else update.stage.value]
        paragraph = ET.Element("p")
        ET.SubElement(paragraph, "strong").text = stage
        text = _clean(update.text.in_(language))
        paragraph[0].tail = f" {text} ({read_time(update.at_unix_ms, language)})"
        parts.append(ET.tostring(paragraph, encoding="unicode"))
    return "".join(parts)


def _identity(views: Views, entry: Entry) -> str:
    return f"{views.url}/status/incidents/{entry.incident.incident_id}"


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold (its section 2.2), which no reader would take."""
    return NO_CHARACTER.sub("", text)


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _clean(text)


def _octets(root: ET.Element) -> bytes:
    text: str = ET.tostring(root, encoding="unicode")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + text.encode()
