"""The form on the status page, and the pages behind links in mails. HTML only; decides nothing."""

from html import escape

from engine.watch.status.mail_words import FORM_WORDS, LANGUAGE_NAMES, frequency_text
from engine.watch.status.page import document
from engine.watch.status.page_words import PAGE_WORDS
from engine.watch.status.subscribers import Frequency
from protocols.languages import Language


def form(language: Language, *, address: str = "", error: str = "") -> str:
    """The section in which people subscribe; `error` is said above what they typed."""
    words = FORM_WORDS[language]
    other: Language = "en" if language == "de" else "de"
    languages = "".join(
        f'<option value="{each}" lang="{each}">{LANGUAGE_NAMES[each]}</option>'
        for each in (language, other)
    )
    frequencies = "".join(
        f'<label><input type="radio" name="frequency" value="{each.value}"'
        f"{' checked' if each is Frequency.EACH else ''}> "
        f"{escape(frequency_text(each, language))}</label>"
        for each in Frequency
    )
    alert = f'<p role="alert" id="fault">{escape(error)}</p>' if error else ""
    described = ' aria-invalid="true" aria-describedby="fault"' if error else ""
    return (
        f'<section aria-labelledby="subscribe"><h2 id="subscribe">{words["subscribe"]}</h2>'
        f'<form method="post" action="/status/subscriptions?lang={language}">{alert}'
        f'<label class="field"><span>{words["address"]}</span>'
        f'<input type="email" name="address" required maxlength="254" autocomplete="email" '
        f'value="{escape(address)}"{described}></label>'
        f"<fieldset><legend>{words['frequency']}</legend>{frequencies}</fieldset>"
        f'<label class="field"><span>{words["language"]}</span>'
        f'<select name="language">{languages}</select></label>'
        f'<button type="submit">{words["send"]}</button>'
        f"<p>{words['privacy']}</p></form></section>"
    )


def notice(language: Language, name: str, title: str, text: str, *, more: str = "") -> str:
    """A page that says one thing; `more` is HTML below it."""
    main = (
        f'<section aria-labelledby="notice"><h2 id="notice">{escape(title)}</h2>'
        f"<p>{escape(text)}</p>{more}"
        f'<p><a href="/status?lang={language}">{FORM_WORDS[language]["back"]}</a></p></section>'
    )
    heading = PAGE_WORDS[language]["title"].replace("{name}", name)
    return document(language, heading, main, other="en" if language == "de" else "de")


def button(action: str, text: str) -> str:
    """A form that is nothing but its button."""
    return (
        f'<form method="post" action="{escape(action)}">'
        f'<button type="submit">{escape(text)}</button></form>'
    )
