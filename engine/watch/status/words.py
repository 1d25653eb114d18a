"""What incidents that open by themselves say, in both languages, and the words of the faces.

`name` is a receiving site's. No text has a number of mails or a customer in it.
"""

from collections.abc import Mapping
from typing import Final

from engine.watch.status.records import Words

# By code: the title, what is said when it opens, and when it is over.
INCIDENTS: Final[Mapping[str, tuple[Words, Words, Words]]] = {
    "intake_closed": (
        Words("Es wird keine Mail angenommen", "No mail is accepted"),
        Words(
            "Der Speicher ist fast voll; neue Mails werden mit 503 abgewiesen und können später "
            "noch einmal geschickt werden. Was schon angenommen war, wird weiter zugestellt.",
            "The storage is almost full; new mail is refused with 503 and can be sent again later. "
            "What had been accepted goes on being delivered.",
        ),
        Words("Mails werden wieder angenommen.", "Mail is accepted again."),
    ),
    "intake_impaired": (
        Words("Annahme gestört", "Mail intake impaired"),
        Words(
            "Die Annahme von Mails ist langsam oder antwortet mit Fehlern. Eine Anfrage ohne "
            "Antwort kann mit demselben Idempotency-Key wiederholt werden.",
            "Taking mail in is slow or fails at times. A request without an answer can be repeated "
            "with its Idempotency-Key.",
        ),
        Words("Die Annahme arbeitet wieder normal.", "Mail intake works normally again."),
    ),
    "results_refused": (
        Words("Zustellung angehalten: Speicher voll", "Delivery is halted: storage full"),
        Words(
            "Ergebnisse lassen sich nicht speichern. Angenommene Mails bleiben erhalten und gehen "
            "weiter, sobald Platz ist.",
            "Results cannot be stored. Accepted mail is kept and moves on as soon as there is "
            "room.",
        ),
        Words("Die Zustellung läuft wieder.", "Delivery goes on."),
    ),
    "disk_low": (
        Words("Wenig freier Speicher", "Storage is running low"),
        Words(
            "Der Speicher ist bald voll. Annahme und Zustellung arbeiten normal.",
            "The storage is filling up. Intake and delivery work normally.",
        ),
        Words("Es ist wieder genug Speicher frei.", "There is enough free storage again."),
    ),
    "stream_behind": (
        Words("Ereignisstrom verspätet", "Event stream delayed"),
        Words(
            "Meldungen über Mails kommen verspätet. Es geht keine verloren.",
            "News of mails comes late. None of it is lost.",
        ),
        Words("Meldungen kommen wieder sofort.", "News comes at once again."),
    ),
    "dns_down": (
        Words("Namensauflösung (DNS) antwortet nicht", "Name resolution (DNS) does not answer"),
        Words(
            "Unsere Nameserver antworten nicht. Mails an Ziele, die erst nachgeschlagen werden "
            "müssen, warten und werden von selbst wieder versucht.",
            "Our name servers do not answer. Mail to destinations that have to be looked up waits "
            "and is tried again by itself.",
        ),
        Words("Die Namensauflösung antwortet wieder.", "Name resolution answers again."),
    ),
    "sites_unreachable": (
        Words("Viele Empfänger nicht erreichbar", "Many receivers cannot be reached"),
        Words(
            "Viele Mailserver sind von hier nicht erreichbar; vermutlich liegt es an unserer "
            "Anbindung. Die Mails warten und werden von selbst wieder versucht.",
            "Many mail servers cannot be reached from here; it is probably our own connection. "
            "The mail waits and is tried again by itself.",
        ),
        Words("Die Mailserver sind wieder erreichbar.", "The mail servers can be reached again."),
    ),
    "site_unreachable": (
        Words("Verzögerte Zustellung an {name}", "Delayed delivery to {name}"),
        Words(
            "Die Mailserver von {name} sind nicht erreichbar. Mails dorthin warten (gesendet, "
            "ausstehend) und werden von selbst wieder versucht.",
            "The mail servers of {name} cannot be reached. Mail to them waits (sent, pending) and "
            "is tried again by itself.",
        ),
        Words("Mails an {name} werden wieder zugestellt.", "Mail to {name} is delivered again."),
    ),
    "site_throttling": (
        Words("Verzögerte Zustellung an {name}", "Delayed delivery to {name}"),
        Words(
            "{name} nimmt zurzeit nur wenige Mails auf einmal an. Wir senden langsamer, damit sie "
            "nicht im Spam-Ordner landen; alle Mails gehen von selbst hinaus.",
            "{name} takes only a few mails at a time just now. We go slower so that they do not "
            "end in the junk folder; all mail goes out by itself.",
        ),
        Words("Mails an {name} werden wieder zügig zugestellt.", "Mail to {name} flows again."),
    ),
    "interruption": (
        Words("Unterbrechung", "Interruption"),
        Words(
            "In dieser Zeit nahm das System keine Mails an und stellte keine zu. Was angenommen "
            "war, ist erhalten geblieben und wird zugestellt.",
            "During this time the system neither accepted nor delivered mail. What had been "
            "accepted was kept and is being delivered.",
        ),
        Words("Das System arbeitet wieder.", "The system works again."),
    ),
}
INCIDENT_ENDS: Final = Words("Die Störung ist behoben.", "The incident is resolved.")
MAINTENANCE_BEGINS: Final = Words("Die Arbeiten haben begonnen.", "The work has begun.")
MAINTENANCE_ENDS: Final = Words("Die Arbeiten sind beendet.", "The work is done.")


def ending(code: str, name: str) -> Words:
    """The usual words for the end of an incident; `code` is "" for one that a person opened."""
    return filled(INCIDENTS[code][2], name) if code in INCIDENTS else INCIDENT_ENDS


def filled(words: Words, name: str) -> Words:
    return Words(words.de.replace("{name}", name), words.en.replace("{name}", name))
