"""Mails to subscribers: text and HTML, with the header fields that let people and programs leave.

RFC 8058 one-click in each of them (RFC 2369 `List-Unsubscribe`, `List-Unsubscribe-Post`), RFC 2919
`List-Id`, RFC 3834 `Auto-Submitted`, so that no holiday notice comes back, and a link that is seen.
Pure but for the random octets that it is given; accepts nothing and knows no subscriber but the
one at hand.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

import msgspec

from engine.spool.interface import NewMessage, NewRecipient
from engine.watch.status.links import Links, Wish
from engine.watch.status.mail_words import MAIL_WORDS, frequency_text
from engine.watch.status.page_words import PAGE_WORDS, read_time
from engine.watch.status.records import Entry, Kind, Update
from engine.watch.status.subscribers import Frequency, mailbox
from protocols.addresses import Address
from protocols.header_fields import Mailbox, format_date
from protocols.languages import Language
from protocols.mime import Message, MessageBuilder

ONE_CLICK: Final = "List-Unsubscribe=One-Click"


class Told(msgspec.Struct, frozen=True):
    """What is told of one entry: the updates that are news."""

    entry: Entry
    updates: tuple[Update, ...]


class _Block(msgspec.Struct, frozen=True):
    """A piece of a mail: a heading or "", lines, and a link (text, address) or None."""

    heading: str = ""
    lines: tuple[str, ...] = ()
    link: tuple[str, str] | None = None


class MailWriter:
    """Writes mails for one page. `url` is where it is found."""

    def __init__(
        self,
        links: Links,
        *,
        name: str,
        url: str,
        sender: Address,
        now_unix_ms: Callable[[], int],
        random_octets: Callable[[int], bytes],
    ) -> None:
        self._links = links
        self._name = name
        self._url = url
        self._sender = sender
        self._now_unix_ms = now_unix_ms
        self._random_octets = random_octets

    def confirmation(self, wish: Wish) -> NewMessage:
        """The mail whose link confirms a wish."""
        words = MAIL_WORDS[wish.language]
        said = words["confirm"].replace(
            "{frequency}", frequency_text(wish.frequency, wish.language)
        )
        blocks = [
            _Block(lines=(said.replace("{name}", self._name),)),
            _Block(link=(words["confirm_link"], self._links.confirmation(wish))),
            _Block(lines=(words["confirm_ignore"],)),
        ]
        subject = words["confirm_subject"].replace("{name}", self._name)
        return self._message(wish.address, wish.language, subject, blocks, is_subscribed=False)

    def update(self, told: Told, address: str, language: Language) -> NewMessage:
        """What is new of one entry, at once."""
        incident = told.entry.incident
        words = MAIL_WORDS[language]
        title = incident.title.in_(language)
        last = told.updates[-1]
        subject = words["update_subject"].replace("{stage}", _stage(told.entry, last, language))
        subject = subject.replace("{name}", self._name).replace("{title}", title)
        blocks = [self._entry(told, language), self._page_link(language)]
        return self._message(address, language, subject, blocks)

    def digest(
        self, frequency: Frequency, news: Sequence[Told], address: str, language: Language
    ) -> NewMessage:
        """What happened in a day or a week; without news it says that all is well."""
        words = MAIL_WORDS[language]
        subject = words[f"{frequency.value}_subject"].replace("{name}", self._name)
        intro = words["digest_intro"] if news else words["all_well"]
        blocks = [
            _Block(lines=(intro,)),
            *(self._entry(told, language) for told in news),
            self._page_link(language),
        ]
        return self._message(address, language, subject, blocks)

    def _entry(self, told: Told, language: Language) -> _Block:
        incident = told.entry.incident
        lines: list[str] = []
        if incident.kind is Kind.MAINTENANCE:
            period = MAIL_WORDS[language]["period"]
            period = period.replace("{from}", read_time(incident.from_unix_ms, language))
            lines.append(period.replace("{until}", read_time(incident.until_unix_ms, language)))
        for update in told.updates:
            stage = _stage(told.entry, update, language)
            at = read_time(update.at_unix_ms, language)
            lines.append(f"{stage} ({at}): {update.text.in_(language)}")
        return _Block(incident.title.in_(language), tuple(lines))

    def _page_link(self, language: Language) -> _Block:
        link = (MAIL_WORDS[language]["page_link"], f"{self._url}/status?lang={language}")
        return _Block(link=link)

    def _message(
        self,
        address: str,
        language: Language,
        subject: str,
        blocks: Sequence[_Block],
        *,
        is_subscribed: bool = True,
    ) -> NewMessage:
        leave_url = self._links.farewell(address, language)
        words = MAIL_WORDS[language]
        if is_subscribed:
            why = words["why"].replace("{name}", self._name)
            blocks = [*blocks, _Block(lines=(why,), link=(words["leave_link"], leave_url))]
        to = mailbox(address)
        identifier = self._random_octets(16).hex()
        list_id = f"status.{self._sender.domain}"
        built = MessageBuilder(self._random_octets(12).hex()).build(
            Message(
                from_=Mailbox(self._sender, self._name),
                to=(Mailbox(to),),
                subject=subject,
                date=format_date(self._now_unix_ms() / 1000),
                message_id=f"<{identifier}@{self._sender.domain}>",
                text=_as_text(blocks),
                html=_as_html(blocks, subject, language),
                extra_fields=(
                    ("List-Id", f"<{list_id}>"),
                    ("List-Unsubscribe", f"<{leave_url}>"),
                    ("List-Unsubscribe-Post", ONE_CLICK),
                    ("Auto-Submitted", "auto-generated"),
                    ("Content-Language", language),
                ),
            )
        )
        uuid = bytearray(self._random_octets(16))
        uuid[6], uuid[8] = uuid[6] & 0x0F | 0x40, uuid[8] & 0x3F | 0x80
        recipient = NewRecipient(bytes(uuid), to.wire, to.as_given, to.domain)
        return NewMessage(
            content=built.octets,
            recipients=[recipient],
            reverse_path=self._sender.wire,
            subject=subject,
            lane=0,
            needs_utf8=built.needs_utf8 or to.needs_utf8,
        )


def _stage(entry: Entry, update: Update, language: Language) -> str:
    is_announcement = entry.incident.kind is Kind.ANNOUNCEMENT
    return PAGE_WORDS[language]["announcement" if is_announcement else update.stage.value]


def _as_text(blocks: Sequence[_Block]) -> str:
    parts: list[str] = []
    for block in blocks:
        lines = [block.heading] if block.heading else []
        lines += block.lines
        if block.link is not None:
            lines.append(f"{block.link[0]}:\n{block.link[1]}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _as_html(blocks: Sequence[_Block], title: str, language: Language) -> str:
    parts: list[str] = []
    for block in blocks:
        if block.heading:
            parts.append(f"<h2>{escape(block.heading)}</h2>")
        parts += (f"<p>{escape(line).replace(chr(10), '<br>')}</p>" for line in block.lines)
        if block.link is not None:
            text, url = block.link
            parts.append(f'<p><a href="{escape(url)}">{escape(text)}</a></p>')
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
