"""What explanations say, in English and German: one sentence for the cause, one for what to do.

The one catalogue for the API, the pages and the command line. Sentences are filled in with `key`
(a destination, a site, an account), `limit`, `ahead`, `why` (a reason in words), `meant` (a domain
that was probably meant) and `contact`. Decides nothing; holds no time, which readers show in their
own way.
"""

from collections.abc import Mapping
from typing import Final

from engine.watch.limit_words import limit_words
from protocols.languages import Language
from protocols.records import Reason

Words = Mapping[str, str]

# The limit of a throttle that lets nothing pass for a while.
SUSPENDED: Final = "suspended"

REASONS: Final[Mapping[Language, Words]] = {
    "en": {
        "unknown_user": "unknown user",
        "mailbox_full": "mailbox full",
        "greylisted": "greylisting",
        "throttled": "the receiver asks for less",
        "policy": "refused by policy",
        "spam": "taken for spam",
        "size": "too large",
        "relay_denied": "relaying denied",
        "connection": "no connection",
        "tls": "encryption failed",
        "dns": "no answer from DNS",
        "no_such_domain": "no such domain",
        "null_mx": "the domain takes no mail",
        "protocol": "broken dialogue",
        "quota": "the plan's limit",
        "suppressed": "the address is suppressed",
        "expired": "too old",
        "outcome_unknown": "the connection was lost before the answer",
        "other": "another reason",
    },
    "de": {
        "unknown_user": "unbekannter Empfänger",
        "mailbox_full": "Postfach voll",
        "greylisted": "Greylisting",
        "throttled": "der Empfänger verlangt weniger",
        "policy": "nach Richtlinie abgelehnt",
        "spam": "für Spam gehalten",
        "size": "zu groß",
        "relay_denied": "Weiterleitung verweigert",
        "connection": "keine Verbindung",
        "tls": "Verschlüsselung gescheitert",
        "dns": "keine Antwort vom DNS",
        "no_such_domain": "die Domain gibt es nicht",
        "null_mx": "die Domain nimmt keine Mail an",
        "protocol": "gestörter Dialog",
        "quota": "das Limit des Tarifs",
        "suppressed": "die Adresse ist gesperrt",
        "expired": "zu alt",
        "outcome_unknown": "die Verbindung brach vor der Antwort ab",
        "other": "ein anderer Grund",
    },
}

# By code, or code and scope, or code and what is missing.
CAUSES: Final[Mapping[Language, Words]] = {
    "en": {
        "in_flight": "It is being handed to the receiving server just now.",
        "in_flight.silent": (
            "It is with the receiving server, which has not answered for a while."
        ),
        "waiting_turn": "Nothing is in the way but the mails to {key} that go before it: {ahead}.",
        "waiting_turn.next": "Nothing is in the way: it is the next one to {key}.",
        "waiting_turn.silent": (
            "The mail servers of {key} take other mail first and have not answered for a while. "
            "Mails before it: {ahead}."
        ),
        "waiting_turn.silent.many": (
            "The mail servers of {key} have not answered for a while. Mails waiting: {ahead}."
        ),
        "in_flight.silent.many": (
            "Mails are with the receiving server, which has not answered for a while."
        ),
        "waiting_turn.many": "Nothing is in the way: mails to {key} go one by one, {ahead} still.",
        "waiting_turn.engine": "It is due and waits for its destination to be taken up.",
        "waiting_turn.engine.many": "Mails are due and wait for the destination to be taken up.",
        "rate_limit": "No more than {limit} may go to {key}. Mails before it: {ahead}.",
        "rate_limit.many": "No more than {limit} may go to {key}. Mails waiting for it: {ahead}.",
        "rate_limit.unlimited": "Mail to {key} was throttled and goes on by itself.",
        "rate_limit.suspended": (
            "Mail to {key} pauses, as the receiver asked; it goes on by itself."
        ),
        "rate_limit.egress": "No more than {limit} may leave from here.",
        "rate_limit.account": "No more than {limit} may go for the account {key}.",
        "rate_limit.campaign": "No more than {limit} may go for the campaign {key}.",
        "connection_limit": "All connections that {key} may have are in use: {limit}.",
        "connection_limit.full": "All connections that {key} may have are in use.",
        "connection_limit.site": (
            "All connections that the mail servers {key} may have are in use: {limit}."
        ),
        "connection_limit.engine": "All connections of the engine are in use: {limit}.",
        "retry_wait": "The last attempt failed ({why}); it is tried again by itself.",
        "retry_wait.many": "Each of the waiting mails was put off and is tried again by itself.",
        "retry_wait.many.why": ("The mails were put off ({why}); each is tried again by itself."),
        "destination_unreachable": (
            "The mail servers of {key} cannot be reached; all mail for it is tried again by itself."
        ),
        "destination_unreachable.refusing": (
            "The mail servers of {key} take no mail at the moment ({why}); all mail for it is "
            "tried again by itself."
        ),
        "dns_failure": (
            "The mail servers of {key} cannot be looked up; all mail for it is tried again by "
            "itself."
        ),
        "hold": "An operator is holding this mail back.",
        "hold.many": "An operator is holding these mails back.",
        "hold.own": "The account itself is holding this mail back.",
        "hold.own.many": "The account itself is holding these mails back.",
        "quota": "The plan of account {key} ({limit}) is used up; the mail is released by itself.",
        "quota.many": "The plans are used up; the mails are released by themselves.",
        "spool_fault": "The engine cannot store results: its disk is full.",
    },
    "de": {
        "in_flight": "Sie wird gerade an den Server des Empfängers übergeben.",
        "in_flight.silent": (
            "Sie ist beim Server des Empfängers, der seit einer Weile nicht antwortet."
        ),
        "waiting_turn": ("Im Weg sind nur die Mails an {key}, die vor ihr dran sind: {ahead}."),
        "waiting_turn.next": "Nichts ist im Weg: Sie ist die nächste an {key}.",
        "waiting_turn.silent": (
            "Die Mailserver von {key} nehmen erst andere Mails und antworten seit einer Weile "
            "nicht. Mails vor ihr: {ahead}."
        ),
        "waiting_turn.silent.many": (
            "Die Mailserver von {key} antworten seit einer Weile nicht. Mails, die warten: {ahead}."
        ),
        "in_flight.silent.many": (
            "Mails sind beim Server des Empfängers, der seit einer Weile nicht antwortet."
        ),
        "waiting_turn.many": "Nichts ist im Weg: Mails an {key} gehen nacheinander, noch {ahead}.",
        "waiting_turn.engine": "Sie ist fällig und wartet, bis ihr Ziel an die Reihe kommt.",
        "waiting_turn.engine.many": "Mails sind fällig und warten, bis das Ziel drankommt.",
        "rate_limit": "An {key} dürfen höchstens {limit} gehen. Mails vor ihr: {ahead}.",
        "rate_limit.many": "An {key} dürfen höchstens {limit} gehen. Mails, die warten: {ahead}.",
        "rate_limit.unlimited": "Mails an {key} waren gedrosselt; sie gehen von selbst weiter.",
        "rate_limit.suspended": (
            "Mails an {key} pausieren, wie der Empfänger es verlangt; sie gehen von selbst weiter."
        ),
        "rate_limit.egress": "Von hier dürfen höchstens {limit} hinausgehen.",
        "rate_limit.account": "Für das Konto {key} dürfen höchstens {limit} hinausgehen.",
        "rate_limit.campaign": "Für die Kampagne {key} dürfen höchstens {limit} hinausgehen.",
        "connection_limit": "Alle Verbindungen, die {key} haben darf, sind belegt: {limit}.",
        "connection_limit.full": "Alle Verbindungen, die {key} haben darf, sind belegt.",
        "connection_limit.site": (
            "Alle Verbindungen, die die Mailserver {key} haben dürfen, sind belegt: {limit}."
        ),
        "connection_limit.engine": "Alle Verbindungen des Programms sind belegt: {limit}.",
        "retry_wait": (
            "Der letzte Versuch ist gescheitert ({why}); sie wird von selbst wieder versucht."
        ),
        "retry_wait.many": (
            "Jede der wartenden Mails wurde aufgeschoben und wird von selbst wieder versucht."
        ),
        "retry_wait.many.why": (
            "Die Mails wurden aufgeschoben ({why}); jede wird von selbst wieder versucht."
        ),
        "destination_unreachable": (
            "Die Mailserver von {key} sind nicht erreichbar; alle Mails dorthin werden von selbst "
            "wieder versucht."
        ),
        "destination_unreachable.refusing": (
            "Die Mailserver von {key} nehmen zurzeit keine Mail an ({why}); alle Mails dorthin "
            "werden von selbst wieder versucht."
        ),
        "dns_failure": (
            "Die Mailserver von {key} lassen sich nicht nachschlagen; alle Mails dorthin werden "
            "von selbst wieder versucht."
        ),
        "hold": "Ein Betreiber hält diese Mail an.",
        "hold.many": "Ein Betreiber hält diese Mails an.",
        "hold.own": "Das Konto selbst hält diese Mail an.",
        "hold.own.many": "Das Konto selbst hält diese Mails an.",
        "quota": (
            "Der Tarif des Kontos {key} ({limit}) ist ausgeschöpft; die Mail wird von selbst "
            "freigegeben."
        ),
        "quota.many": "Die Tarife sind ausgeschöpft; die Mails werden von selbst freigegeben.",
        "spool_fault": "Ergebnisse lassen sich nicht speichern: Der Datenträger ist voll.",
    },
}

# By code of what holds it, or code and reason.
WAITING_ADVICE: Final[Mapping[Language, Words]] = {
    "en": {
        "in_flight": "Nothing to do: the answer comes within moments.",
        "in_flight.silent": (
            "Nothing to do: the server is given the time that the mail standard asks for; then the "
            "mail is tried again."
        ),
        "waiting_turn": "Nothing to do: it goes by itself.",
        "waiting_turn.silent": (
            "Nothing to do: the servers are given the time that the mail standard asks for; then "
            "it goes on by itself."
        ),
        "rate_limit": (
            "Nothing to do: going slower is what keeps mail to this receiver out of the junk "
            "folder. Bulk mail that is sent with Priority 0 lets your other mail go first."
        ),
        "rate_limit.account": (
            "Nothing to do: it goes by itself. If your account needs more, ask {contact}."
        ),
        "rate_limit.campaign": (
            "Nothing to do: it goes by itself. If your campaign needs more, ask {contact}."
        ),
        "connection_limit": "Nothing to do: it goes by itself as soon as a connection is free.",
        "retry_wait": "Nothing to do: it is tried again until it expires.",
        "retry_wait.many": (
            "What helps depends on the cause; all are tried again until they expire."
        ),
        "retry_wait.mailbox_full": (
            "Ask the recipient to make room in the mailbox; until it expires the mail is tried "
            "again."
        ),
        "retry_wait.mailbox_full.many": (
            "Ask these recipients to make room in their mailboxes; until they expire the mails "
            "are tried again."
        ),
        "retry_wait.greylisted": (
            "Nothing to do: this receiver turns away first attempts and takes later ones."
        ),
        "retry_wait.throttled": (
            "Nothing to do now; fewer mails at a time to this receiver would not be put off."
        ),
        "retry_wait.spam": (
            "Look at the content and at the sender domain's SPF, DKIM and DMARC: the receiver "
            "suspects spam."
        ),
        "retry_wait.policy": "Read the reply: the receiver says what it objects to.",
        "destination_unreachable": (
            "Nothing to do if the domain is right; what is urgent should reach the recipient in "
            "another way."
        ),
        "destination_unreachable.throttled": (
            "Nothing to do now; fewer mails at a time to this receiver would not be put off."
        ),
        "dns_failure": "Check that the domain in the address is spelt correctly.",
        "hold": "Ask {contact} when it will go on.",
        "hold.own": "Lift the hold, or resume the campaign, when it is to go on.",
        "quota": "Wait for the release, or change to a larger plan: that releases it at once.",
        "spool_fault": "Tell {contact}: there has to be room on the engine's disk.",
        "meant": "Was {meant} meant?",
        "expires_first": "At this pace it expires before its turn comes.",
        "nothing": "Nothing waits here.",
    },
    "de": {
        "in_flight": "Nichts zu tun: Die Antwort kommt in wenigen Augenblicken.",
        "in_flight.silent": (
            "Nichts zu tun: Der Server bekommt die Zeit, die der Mailstandard verlangt; danach "
            "wird die Mail wieder versucht."
        ),
        "waiting_turn": "Nichts zu tun: Sie geht von selbst.",
        "waiting_turn.silent": (
            "Nichts zu tun: Die Server bekommen die Zeit, die der Mailstandard verlangt; danach "
            "geht es von selbst weiter."
        ),
        "rate_limit": (
            "Nichts zu tun: Langsamer zu senden hält Mails an diesen Empfänger vom Spam-Ordner "
            "fern. Massenmails mit Priority 0 lassen Ihre übrigen Mails vor."
        ),
        "rate_limit.account": (
            "Nichts zu tun: Sie geht von selbst. Braucht Ihr Konto mehr, fragen Sie {contact}."
        ),
        "rate_limit.campaign": (
            "Nichts zu tun: Sie geht von selbst. Braucht Ihre Kampagne mehr, fragen Sie {contact}."
        ),
        "connection_limit": "Nichts zu tun: Sie geht von selbst, sobald eine Verbindung frei ist.",
        "retry_wait": "Nichts zu tun: Sie wird wieder versucht, bis sie verfällt.",
        "retry_wait.many": (
            "Was hilft, hängt von der Ursache ab; alle werden wieder versucht, bis sie verfallen."
        ),
        "retry_wait.mailbox_full": (
            "Bitten Sie den Empfänger, in seinem Postfach Platz zu schaffen; bis sie verfällt, "
            "wird die Mail wieder versucht."
        ),
        "retry_wait.mailbox_full.many": (
            "Bitten Sie diese Empfänger, in ihren Postfächern Platz zu schaffen; bis sie "
            "verfallen, werden die Mails wieder versucht."
        ),
        "retry_wait.greylisted": (
            "Nichts zu tun: Dieser Empfänger weist erste Versuche ab und nimmt spätere an."
        ),
        "retry_wait.throttled": (
            "Jetzt nichts zu tun; weniger Mails auf einmal an diesen Empfänger würden nicht "
            "aufgeschoben."
        ),
        "retry_wait.spam": (
            "Prüfen Sie den Inhalt sowie SPF, DKIM und DMARC der Absenderdomain: Der Empfänger "
            "vermutet Spam."
        ),
        "retry_wait.policy": "Lesen Sie die Antwort: Der Empfänger sagt, was er beanstandet.",
        "destination_unreachable": (
            "Nichts zu tun, wenn die Domain stimmt; Eiliges sollte den Empfänger auf anderem Weg "
            "erreichen."
        ),
        "destination_unreachable.throttled": (
            "Jetzt nichts zu tun; weniger Mails auf einmal an diesen Empfänger würden nicht "
            "aufgeschoben."
        ),
        "dns_failure": "Prüfen Sie, ob die Domain in der Adresse richtig geschrieben ist.",
        "hold": "Fragen Sie {contact}, wann es weitergeht.",
        "hold.own": "Lassen Sie diese Mail wieder frei oder die Kampagne weiterlaufen, sobald sie "
        "hinausgehen soll.",
        "quota": (
            "Warten Sie auf die Freigabe, oder wechseln Sie in einen größeren Tarif: Das gibt sie "
            "sofort frei."
        ),
        "spool_fault": "Sagen Sie {contact} Bescheid: Der Datenträger braucht Platz.",
        "meant": "War {meant} gemeint?",
        "expires_first": "In diesem Tempo verfällt sie, bevor sie an der Reihe ist.",
        "nothing": "Hier wartet nichts.",
    },
}

# Who says so has been reached.
_SAID_BY_SERVERS: Final = frozenset(
    {
        Reason.THROTTLED,
        Reason.POLICY,
        Reason.SPAM,
        Reason.GREYLISTED,
        Reason.SIZE,
        Reason.RELAY_DENIED,
    }
)
_DOMAIN_CODES: Final = frozenset({"destination_unreachable", "dns_failure"})


def reason_words(language: Language, reason: Reason | None) -> str:
    return REASONS[language][reason or Reason.OTHER]


def cause_text(
    language: Language,
    code: str,
    *,
    scope: str = "",
    key: str,
    limit: str = "",
    ahead: int = 0,
    reason: Reason | None = None,
    many: bool = False,
    note: str = "",
    is_own: bool = False,
    is_silent: bool = False,
) -> str:
    """Return the sentence about what holds a mail back, with a `note` of whoever holds it.

    `many` is about a destination's mails.
    """
    words = CAUSES[language]
    variant = scope
    if is_own:
        variant = "own.many" if many else "own"
    elif is_silent:
        variant = "silent.many" if many and f"{code}.silent.many" in words else "silent"
    elif code == "rate_limit" and limit in ("", SUSPENDED):
        variant = limit or "unlimited"
    elif code == "connection_limit" and not limit:
        variant = "full"
    elif code == "rate_limit" and scope in ("egress", "account", "campaign"):
        variant = scope
    elif many and f"{code}.{scope}.many" in words:
        variant = f"{scope}.many"
    elif many and reason is not None and f"{code}.many.why" in words:
        variant = "many.why"
    elif many and f"{code}.many" in words:
        variant = "many"
    elif scope == "destination" and code == "waiting_turn" and not ahead:
        variant = "next"
    elif code == "destination_unreachable" and reason in _SAID_BY_SERVERS:
        variant = "refusing"
    sentence = words.get(f"{code}.{variant}") or words[code]
    said = sentence.format(
        key=key,
        # Of "20 connections" the number is the same word in every language.
        limit=limit.partition(" ")[0]
        if code == "connection_limit"
        else limit_words(language, limit),
        ahead=number_text(language, ahead),
        why=reason_words(language, reason),
    )
    return f"{said.removesuffix('.')} ({note})." if note else said


def waiting_advice(
    language: Language,
    code: str,
    reason: Reason | None,
    *,
    contact: str,
    meant: str | None,
    scope: str = "",
    many: bool = False,
    expires_first: bool = False,
    is_own: bool = False,
    is_silent: bool = False,
) -> str:
    """Return what the sender of a waiting mail, or of `many`, can do."""
    words = WAITING_ADVICE[language]
    said = words.get(f"{code}.{reason}") or words.get(f"{code}.{scope}") or words[code]
    if many:
        said = words.get(f"{code}.{reason}.many" if reason else f"{code}.many") or said
    if is_own:
        said = words[f"{code}.own"]
    if is_silent:
        said = words[f"{code}.silent"]
    sentences = [said]
    if meant and code in _DOMAIN_CODES:
        sentences.append(words["meant"])
    if expires_first:
        sentences.append(words["expires_first"])
    return " ".join(sentences).format(contact=contact, meant=meant)


def number_text(language: Language, number: int) -> str:
    """Return a number as it is written in a language."""
    return f"{number:,}" if language == "en" else f"{number:,}".replace(",", ".")


def nothing_waits(language: Language) -> str:
    return WAITING_ADVICE[language]["nothing"]
