"""The words of the forms, the pages behind links, and the mails, in both languages.

`name` is the page's. Nothing here builds a mail or a page.
"""

from collections.abc import Mapping
from typing import Final

from engine.watch.status.subscribers import Frequency
from protocols.languages import Language

Words = Mapping[str, str]

FORM_WORDS: Final[Mapping[Language, Words]] = {
    "en": {
        "subscribe": "Subscribe by e-mail",
        "address": "E-mail address",
        "language": "Language",
        "frequency": "How often",
        "each": "at once, for each incident, announcement and planned work",
        "daily": "a digest a day, if there is something to tell",
        "weekly": "a digest a week",
        "send": "Subscribe",
        "privacy": "We use the address for this alone; each mail has a link that ends it.",
        "sent_title": "Please look into your mailbox",
        "sent": (
            "If the address can be written to, a mail with a link to confirm is on its way. It is "
            "good for 48 hours."
        ),
        "refused_title": "Too many requests",
        "refused": "Too many subscriptions have been asked for. Please try again in an hour.",
        "closed_title": "Not possible just now",
        "closed": "Nothing can be stored just now. Please try again later.",
        "bad_address_title": "This address cannot be used",
        "bad_address": "At character {position}: {fault}.",
        "bad_form_title": "This form cannot be used",
        "bad_form": "Please use the form on the status page.",
        "confirm_title": "Confirm the subscription",
        "confirm": "{address} is to get mail about {name}: {frequency}.",
        "confirm_button": "Confirm",
        "confirmed_title": "You are subscribed",
        "confirmed": "{address} gets mail from now on: {frequency}.",
        "full": "There are too many subscribers already.",
        "bad_link_title": "This link cannot be used",
        "bad_link": "It is too old, or was cut off on its way. You can subscribe again.",
        "leave_title": "End the subscription",
        "leave": "{address} gets mail about {name}. Do you want no more of it?",
        "leave_button": "Unsubscribe",
        "left_title": "You are not subscribed any more",
        "left": "{address} gets no more mail about {name}.",
        "back": "To the status page",
    },
    "de": {
        "subscribe": "Per E-Mail abonnieren",
        "address": "E-Mail-Adresse",
        "language": "Sprache",
        "frequency": "Wie oft",
        "each": "sofort, bei jeder Störung, Ankündigung und geplanten Arbeit",
        "daily": "täglich gesammelt, wenn es etwas zu melden gibt",
        "weekly": "wöchentlich gesammelt",
        "send": "Abonnieren",
        "privacy": "Wir nutzen die Adresse nur dafür; jede Mail hat einen Link, der das beendet.",
        "sent_title": "Bitte sehen Sie in Ihr Postfach",
        "sent": (
            "Wenn die Adresse erreichbar ist, ist eine Mail mit einem Link zum Bestätigen "
            "unterwegs. Er gilt 48 Stunden."
        ),
        "refused_title": "Zu viele Anfragen",
        "refused": (
            "Es wurden zu viele Abonnements verlangt. Bitte versuchen Sie es in einer Stunde "
            "wieder."
        ),
        "closed_title": "Gerade nicht möglich",
        "closed": "Gerade lässt sich nichts speichern. Bitte versuchen Sie es später wieder.",
        "bad_address_title": "Diese Adresse ist nicht möglich",
        "bad_address": "An Stelle {position}: {fault}.",
        "bad_form_title": "Dieses Formular ist nicht brauchbar",
        "bad_form": "Bitte nehmen Sie das Formular auf der Statusseite.",
        "confirm_title": "Abonnement bestätigen",
        "confirm": "{address} soll Mails über {name} bekommen: {frequency}.",
        "confirm_button": "Bestätigen",
        "confirmed_title": "Sie haben abonniert",
        "confirmed": "{address} bekommt von nun an Mails: {frequency}.",
        "full": "Es gibt schon zu viele Abonnements.",
        "bad_link_title": "Dieser Link ist nicht brauchbar",
        "bad_link": "Er ist zu alt oder unterwegs abgeschnitten. Sie können neu abonnieren.",
        "leave_title": "Abonnement beenden",
        "leave": "{address} bekommt Mails über {name}. Möchten Sie keine mehr?",
        "leave_button": "Abbestellen",
        "left_title": "Sie haben abbestellt",
        "left": "{address} bekommt keine Mails mehr über {name}.",
        "back": "Zur Statusseite",
    },
}
MAIL_WORDS: Final[Mapping[Language, Words]] = {
    "en": {
        "confirm_subject": "[{name}] Please confirm your subscription",
        "confirm": (
            "Somebody, we hope you, wants to get mail about the status of {name} at this address: "
            "{frequency}."
        ),
        "confirm_link": "Confirm on this page, within 48 hours",
        "confirm_ignore": "If it was not you, ignore this mail: nothing more will come.",
        "update_subject": "[{name}] {stage}: {title}",
        "daily_subject": "[{name}] What happened in the last day",
        "weekly_subject": "[{name}] What happened in the last week",
        "digest_intro": "Since the last digest:",
        "all_well": "Nothing was out of order in the last week. All is well.",
        "period": "From {from} to {until}.",
        "page_link": "Status page",
        "why": "You get this mail because you have subscribed to the status page of {name}.",
        "leave_link": "Unsubscribe",
    },
    "de": {
        "confirm_subject": "[{name}] Bitte bestätigen Sie Ihr Abonnement",
        "confirm": (
            "Jemand, hoffentlich Sie, möchte an diese Adresse Mails über den Status von {name} "
            "bekommen: {frequency}."
        ),
        "confirm_link": "Auf dieser Seite bestätigen, innerhalb von 48 Stunden",
        "confirm_ignore": "Waren Sie es nicht, dann tun Sie nichts: Es kommt keine weitere Mail.",
        "update_subject": "[{name}] {stage}: {title}",
        "daily_subject": "[{name}] Was am letzten Tag geschah",
        "weekly_subject": "[{name}] Was in der letzten Woche geschah",
        "digest_intro": "Seit der letzten Sammelmail:",
        "all_well": "In der letzten Woche gab es keine Störung. Alles ist in Ordnung.",
        "period": "Von {from} bis {until}.",
        "page_link": "Statusseite",
        "why": "Sie bekommen diese Mail, weil Sie die Statusseite von {name} abonniert haben.",
        "leave_link": "Abbestellen",
    },
}
LANGUAGE_NAMES: Final[Mapping[Language, str]] = {"en": "English", "de": "Deutsch"}


def frequency_text(frequency: Frequency, language: Language) -> str:
    return FORM_WORDS[language][frequency.value]
