"""What the sender of a finished mail can do, in English and German. See `explain_words`."""

import re
from collections.abc import Mapping
from typing import Final

from engine.watch.explain_words import Words
from protocols.languages import Language
from protocols.records import Reason, Status

# Replies that say more than their reason: about addresses beyond ASCII (RFC 6531), and of damage
# here, which is told in parentheses, as all words of our own are.
_ADVICE_BY_REPLY: Final = re.compile(r"^5\d\d (5\.6\.[79]\b|5\.3\.0(?= \())")
# By the code in the reply, by reason, or by status.
FINAL_ADVICE: Final[Mapping[Language, Words]] = {
    "en": {
        "delivered": (
            "The recipient's server has taken it. If the recipient does not see it, it may be in "
            "the junk folder."
        ),
        "cancelled": "It was cancelled and is not sent; send it again if it is wanted after all.",
        "soft_bounced": "Read the reply, and send it again once its cause is gone.",
        "hard_bounced": "Check the address; it takes no mail.",
        "blocked": "It was not sent; read the reason.",
        "5.6.7": (
            "Use another address: the receiver's server takes none with letters beyond ASCII "
            "before the @, be it the sender's or the recipient's."
        ),
        "5.6.9": (
            "Use addresses of plain letters in From, Reply-To and Cc: the receiver's server takes "
            "no others."
        ),
        "5.3.0": "It was damaged in this server's storage. Send it again.",
        "unknown_user": "Check the address: the receiver does not know it.",
        "no_such_domain": "Check the domain in the address: it does not exist.",
        "null_mx": "Check the domain in the address: it takes no mail at all.",
        "mailbox_full": "Ask the recipient to make room in the mailbox, then send it again.",
        "policy": "Read the reply: the receiver says what it objects to.",
        "spam": (
            "Look at the content and at the sender domain's SPF, DKIM and DMARC before you send "
            "it again."
        ),
        "size": "Make it smaller: the receiver takes no mail of this size.",
        "relay_denied": (
            "Check the domain in the address: its mail server does not feel responsible for it."
        ),
        "expired": (
            "It was tried until it was too old. Check the domain in the address, and reach the "
            "recipient in another way."
        ),
        "suppressed": (
            "The address did not exist at an earlier mail. If it does now, have it taken off the "
            "suppression list."
        ),
        "meant": "Was {meant} meant?",
    },
    "de": {
        "delivered": (
            "Der Server des Empfängers hat sie angenommen. Sieht der Empfänger sie nicht, kann "
            "sie im Spam-Ordner liegen."
        ),
        "cancelled": (
            "Sie wurde abgebrochen und wird nicht gesendet; senden Sie sie neu, wenn sie doch "
            "gebraucht wird."
        ),
        "soft_bounced": "Lesen Sie die Antwort, und senden Sie neu, wenn die Ursache behoben ist.",
        "hard_bounced": "Prüfen Sie die Adresse; sie nimmt keine Mail an.",
        "blocked": "Sie wurde nicht gesendet; der Grund steht dabei.",
        "5.6.7": (
            "Nehmen Sie eine andere Adresse: Der Server des Empfängers nimmt keine mit Umlauten "
            "oder anderen Zeichen außerhalb von ASCII vor dem @, sei es die des Absenders oder "
            "die des Empfängers."
        ),
        "5.6.9": (
            "Nehmen Sie für From, Reply-To und Cc Adressen ohne Umlaute und ähnliche Zeichen vor "
            "dem @: Der Server des Empfängers nimmt keine anderen."
        ),
        "5.3.0": "Sie wurde im Speicher dieses Servers beschädigt. Senden Sie sie neu.",
        "unknown_user": "Prüfen Sie die Adresse: Der Empfänger kennt sie nicht.",
        "no_such_domain": "Prüfen Sie die Domain in der Adresse: Es gibt sie nicht.",
        "null_mx": "Prüfen Sie die Domain in der Adresse: Sie nimmt gar keine Mail an.",
        "mailbox_full": (
            "Bitten Sie den Empfänger, in seinem Postfach Platz zu schaffen, und senden Sie neu."
        ),
        "policy": "Lesen Sie die Antwort: Der Empfänger sagt, was er beanstandet.",
        "spam": (
            "Prüfen Sie den Inhalt sowie SPF, DKIM und DMARC der Absenderdomain, bevor Sie neu "
            "senden."
        ),
        "size": "Machen Sie sie kleiner: Der Empfänger nimmt keine Mail dieser Größe an.",
        "relay_denied": (
            "Prüfen Sie die Domain in der Adresse: Ihr Mailserver fühlt sich nicht zuständig."
        ),
        "expired": (
            "Sie wurde versucht, bis sie zu alt war. Prüfen Sie die Domain in der Adresse, und "
            "erreichen Sie den Empfänger auf anderem Weg."
        ),
        "suppressed": (
            "Die Adresse gab es bei einer früheren Mail nicht. Gibt es sie jetzt, lassen Sie sie "
            "von der Sperrliste nehmen."
        ),
        "meant": "War {meant} gemeint?",
    },
}

# Where a misspelt domain may be the cause.
_DOMAIN_REASONS: Final = frozenset(
    {
        Reason.UNKNOWN_USER,
        Reason.NO_SUCH_DOMAIN,
        Reason.NULL_MX,
        Reason.RELAY_DENIED,
        Reason.EXPIRED,
    }
)


def final_advice(
    language: Language, status: Status, reason: Reason | None, reply: str, *, meant: str | None
) -> str:
    """Return what the sender of a finished mail can do."""
    words = FINAL_ADVICE[language]
    fits = status in (Status.SOFT_BOUNCED, Status.HARD_BOUNCED, Status.BLOCKED)
    by_reason = words.get(reason) if fits and reason else None
    by_code = words.get(next(iter(_ADVICE_BY_REPLY.findall(reply)), "")) if fits else None
    sentences = [by_code or by_reason or words[status]]
    if meant and fits and reason in _DOMAIN_REASONS:
        sentences.append(words["meant"])
    return " ".join(sentences).format(meant=meant)
