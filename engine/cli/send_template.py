"""What `eilpost send` says of a campaign before its recipients: from options and a file.

Puts together and decides nothing: the engine judges, or the dry run.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

# As people write senders: Shop <shop@out.example>, the name in quotation marks or not.
_NAMED: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^<>"]*?))\s*<([^<>]*)>\s*')


def mailbox(text: str) -> dict[str, str]:
    """Return the name and address in `Shop <shop@out.example>` or `shop@out.example`."""
    found = _NAMED.fullmatch(text)
    if found is None:
        return {"email": text.strip()}
    name = re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]
    return {"email": found[3].strip(), **({"name": name} if name else {})}


def header(text: str) -> tuple[str, str]:
    """Return the two halves of `Name: value`. Raises click.BadParameter."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{text!r} is no header field like 'X-Name: value'")
    return name.strip(), value.strip()


def campaign_of(given: Mapping[str, Any], template: Path | None) -> dict[str, Any]:
    """Return the body of `POST /v1/campaigns`, and under "account" whose it is, if that was said.

    `given` are the command's options, which go before what `template` says. Raises ConfigError and
    click.ClickException for files, click.UsageError for what is missing.
    """
    from engine.config import CampaignFile, read_campaign_file

    file = read_campaign_file(template) if template else CampaignFile()
    text = _content(given["text"], file.text, file.text_file)
    html = _content(given["html"], file.html, file.html_file)
    campaign: str | None = given["campaign"] or file.campaign
    sender: str | None = given["sender"] or file.sender
    reply_to = given["reply_to"] or file.reply_to
    lane = file.lane if given["lane"] is None else given["lane"]
    subject: str | None = file.subject if given["subject"] is None else given["subject"]
    if not campaign or not sender or subject is None:
        missing = "--campaign" if not campaign else "--from" if not sender else "--subject"
        raise click.UsageError(f"say {missing}, here or in the file of --template")
    if text is None and html is None:
        raise click.UsageError("say --text, --html or both, here or in the file of --template")
    made = {
        "account": given["account"] or file.account,
        "campaign": campaign,
        "from": mailbox(sender),
        "reply_to": mailbox(reply_to) if reply_to else None,
        "subject": subject,
        "text": text,
        "html": html,
        "headers": {**file.headers, **dict(_headers(given["header"]))} or None,
        "lane": lane,
    }
    return {name: value for name, value in made.items() if value is not None}


def _headers(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [header(text) for text in texts]


def _content(option: Path | None, inline: str | None, file: Path | None) -> str | None:
    """Return the text of the file of an option, else what the template says."""
    if option is None and inline is not None:
        if file is not None:
            raise click.UsageError("the template has a text and a file for the same part")
        return inline
    path = option or file
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: not UTF-8 at octet {error.start}") from error
