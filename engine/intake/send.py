"""`POST /v3.1/send`: mail over HTTP, as the clients of Mailjet's API speak it.

One request is one unit of acceptance: the good messages of a batch are stored in one transaction
and the answer is given after it is durable; the bad ones are answered with their errors, which
makes the status 400 although the good ones are under way. That is how those clients expect it.

A repeated `Idempotency-Key` alone means nothing here, because mailjet-rest makes the key from part
of the request only: two different mails can have the same. What is recognised is the same account,
path, key and whole body, for `[http] idempotency_window_s` seconds; it is answered with the
identifiers of the first time, and nothing is stored twice.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec
import trio

from engine.clock import Clock
from engine.config import Config
from engine.http_server import HttpError, Request, Response, Route
from engine.intake import send_errors
from engine.intake.accounts import no_room_text, quota_of
from engine.intake.send_build import BUILT_OCTETS_MAX, BatchBuilder, BuiltMessage
from engine.intake.send_check import Draft, MessageChecker, merged
from engine.intake.send_errors import SendError
from engine.intake.send_request import MESSAGES_MAX, MessageIn, SendRequest, decode_send_request
from engine.spool import RunBlocking
from engine.spool.interface import (
    Accepted,
    AcceptedEnvelope,
    AcceptRequest,
    Quota,
    Spool,
    SpoolError,
    SpoolFailed,
)
from protocols.address_suggestions import DomainTypos
from protocols.records import Account, Status

PATH: Final = "/v3.1/send"
# 15 MB of attachments are 20 MB of base64; what else is in a request is small beside it.
REQUEST_OCTETS_MAX: Final = 32 * 1024 * 1024
# A batch of 50 usual messages takes the loop 3 ms and a thread would gain nothing. Several
# megabytes take long enough for deliveries to feel it.
THREAD_OCTETS_MIN: Final = 1024 * 1024
# More at once would hold more large requests twice in memory, and finish none sooner.
LARGE_AT_ONCE_MAX: Final = 2
# A full spool empties at the pace of deliveries: a minute is soon enough to ask again.
RETRY_AFTER_S: Final = 60


class RecipientOut(msgspec.Struct, frozen=True):
    Email: str
    MessageUUID: str
    MessageID: int
    MessageHref: str


class SentMessage(msgspec.Struct, frozen=True):
    """One good message before it is accepted: its envelopes' places in the whole request."""

    draft: Draft
    places: list[int]


class Prepared(msgspec.Struct, frozen=True):
    """A request read, checked and built. Of what is refused later, errors take the place."""

    request_messages: list[SentMessage | list[SendError]]
    built: list[BuiltMessage]
    sandbox: bool


class SendDoor:
    """The handler of the route. The last three arguments are seams, for runs that must repeat."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        typos: DomainTypos,
        clock: Clock,
        random_octets: Callable[[int], bytes],
        run_blocking: RunBlocking,
    ) -> None:
        self._spool = spool
        self._config = config
        self._typos = typos
        self._clock = clock
        self._random_octets = random_octets
        self._href = f"{config.public_url}/v3/REST/message/"
        self._run_blocking = run_blocking
        self._large = trio.Semaphore(LARGE_AT_ONCE_MAX)

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [
            Route(
                "POST",
                PATH,
                self.send,
                body_bytes_max=REQUEST_OCTETS_MAX,
                render_error=self._render_error,
                folds_case=True,
            )
        ]

    async def send(self, request: Request) -> Response:
        """Accept a batch. Raises HttpError only for who asks, not for what is asked."""
        account = await self._account(request)
        # Asked here: the engine's clock is the loop's, and threads may not ask it.
        now_unix_ms = self._clock.now_unix_ms()
        is_large = len(request.body) >= THREAD_OCTETS_MIN
        read = None if is_large else decode_send_request(request.body)
        if isinstance(read, SendError):
            return self._error(read)
        prepared: Prepared | SendError
        if read is not None and not fills_in(read):
            prepared = self._prepare(read, now_unix_ms)
        else:
            async with self._large:
                prepared = await self._run_blocking(
                    self._prepare, request.body if read is None else read, now_unix_ms
                )
        if isinstance(prepared, SendError):
            return self._error(prepared)
        envelopes: Mapping[int, AcceptedEnvelope] | None = None
        if prepared.built and not prepared.sandbox:
            quota = quota_of(account, self._config)
            accepted = await self._accept(account, quota, request, prepared)
            if isinstance(accepted, SpoolError):
                return self._refusal(accepted)
            envelopes = _by_place(accepted)
            if accepted.refused:
                _refuse(prepared, accepted.refused, quota)
        return self._answer(prepared, envelopes)

    async def _account(self, request: Request) -> Account:
        """Return whose mail this is. An operator, who has none, names the account in a header."""
        if request.identity.account is not None:
            return request.identity.account
        # Header octets come as Latin-1; names are in UTF-8, as everywhere.
        name = (
            (request.header(b"x-eilpost-account") or "").encode("latin-1").decode(errors="replace")
        )
        for account in await self._spool.accounts():
            if account.name == name:
                if account.disabled:
                    raise HttpError(403, "account_suspended", "This account is suspended.")
                return account
        raise HttpError(403, "no_account", "An operator names an account in X-Eilpost-Account.")

    def _prepare(self, given: bytes | SendRequest, now_unix_ms: int) -> Prepared | SendError:
        """Read, check and build; no waiting, so that it can run in a thread."""
        request = decode_send_request(given) if isinstance(given, bytes) else given
        if isinstance(request, SendError):
            return request
        if request.messages is None:
            return send_errors.missing("Messages")
        if not request.messages:
            return send_errors.empty_array("Messages")
        if len(request.messages) > MESSAGES_MAX:
            return send_errors.too_many(MESSAGES_MAX, "Messages")
        checker = MessageChecker(self._typos)
        builder = BatchBuilder(self._config.delivery.ehlo_name, now_unix_ms, self._random_octets)
        answers: list[SentMessage | list[SendError]] = []
        built: list[BuiltMessage] = []
        envelopes = 0
        for one in request.messages:
            checked = one if isinstance(one, list) else checker.check(merged(one, request.globals_))
            if isinstance(checked, list):
                answers.append(checked)
                continue
            mail = builder.build(checked)
            if mail is None:
                answers.append([send_errors.payload_too_big(BUILT_OCTETS_MAX)])
                continue
            built.append(mail)
            answers.append(SentMessage(checked, [envelopes + place for place in mail.places]))
            envelopes += len(mail.places)
        return Prepared(answers, built, request.sandbox_mode is True)

    async def _accept(
        self, account: Account, quota: Quota, request: Request, prepared: Prepared
    ) -> Accepted | SpoolError:
        window_ms = int(self._config.http.idempotency_window_s * 1000)
        key = request.header(b"idempotency-key")
        wanted = AcceptRequest(
            account=account,
            messages=[message for one in prepared.built for message in one.messages],
            quota=quota,
            digest=_digest(account, key, request.body) if key and window_ms else None,
            digest_lives_ms=window_ms,
            one_by_one=True,
        )
        try:
            (accepted,) = await self._spool.accept([wanted])
        except SpoolError as error:
            return error
        return accepted

    def _answer(
        self, prepared: Prepared, envelopes: Mapping[int, AcceptedEnvelope] | None
    ) -> Response:
        answers = [
            self._failure(one) if isinstance(one, list) else self._success(one, envelopes)
            for one in prepared.request_messages
        ]
        failed = any(isinstance(one, list) for one in prepared.request_messages)
        accepted = envelopes.values() if envelopes else ()
        paused = [one.due_unix_ms for one in accepted if one.status is Status.PAUSED]
        headers = [("X-MJ-Request-Guid", self._identifier())]
        if paused:
            # Clients take held mail for sent, as the API has no word for it; here it can be seen.
            headers.append(("X-Eilpost-Paused", str(len(paused))))
        return Response.json({"Messages": answers}, 400 if failed else 200, headers)

    def _success(
        self, one: SentMessage, envelopes: Mapping[int, AcceptedEnvelope] | None
    ) -> dict[str, object]:
        draft = one.draft
        recipients = [mailbox.address.as_given for mailbox in (*draft.to, *draft.cc, *draft.bcc)]
        out = [
            self._recipient(address, None if envelopes is None else envelopes[place])
            for address, place in zip(recipients, one.places, strict=True)
        ]
        cc, bcc = len(draft.to), len(draft.to) + len(draft.cc)
        answer: dict[str, object] = {
            "Status": "success",
            "CustomID": draft.custom_id,
            "To": out[:cc],
            "Cc": out[cc:bcc],
            "Bcc": out[bcc:],
        }
        if draft.warnings:
            answer["Warnings"] = draft.warnings
        return answer

    def _recipient(self, address: str, envelope: AcceptedEnvelope | None) -> RecipientOut:
        if envelope is None:  # In the sandbox nothing is stored, and 0 is Mailjet's id for that.
            return RecipientOut(address, "", 0, f"{self._href}0")
        return RecipientOut(
            address,
            str(UUID(bytes=envelope.uuid)),
            envelope.envelope_id,
            f"{self._href}{envelope.envelope_id}",
        )

    def _failure(self, errors: list[SendError]) -> dict[str, object]:
        return {
            "Status": "error",
            "Errors": [error.to_json(self._identifier()) for error in errors],
        }

    def _error(self, error: SendError) -> Response:
        return Response.json(error.to_json(self._identifier()), error.status_code)

    def _refusal(self, error: SpoolError) -> Response:
        """Answer for a spool that did not take the mail, or that no longer knows whether it did."""
        if isinstance(error, SpoolFailed):
            text = (
                "The server has to stop, and whether this mail was accepted is not known. Repeat "
                "the same request with the same Idempotency-Key, or look whether it is there."
            )
            refused = self._error(SendError("spool-0002", text, status_code=503))
        else:
            text = (
                "The server cannot take mail at the moment. Nothing was accepted; try again later."
            )
            refused = self._error(SendError("spool-0001", text, status_code=503))
        refused.headers = [("Retry-After", str(RETRY_AFTER_S))]
        return refused

    def _render_error(self, error: HttpError) -> Response:
        """Give the port's own refusals the form that these clients read."""
        body: dict[str, object] = {
            "ErrorIdentifier": self._identifier(),
            "StatusCode": error.status,
            "ErrorMessage": error.message,
        }
        if error.code == "account_suspended":
            body |= {"ErrorCode": "mj-0001", "ErrorMessage": send_errors.SUSPENDED_TEXT}
        elif error.status == 401:
            body["ErrorMessage"] = send_errors.UNAUTHORISED_TEXT
        elif error.status == 413:
            too_big = send_errors.payload_too_big(REQUEST_OCTETS_MAX)
            body |= {"ErrorCode": too_big.code, "ErrorMessage": too_big.message}
        return Response.json(body, error.status, error.headers)

    def _identifier(self) -> str:
        return str(UUID(bytes=self._random_octets(16), version=4))


def _by_place(accepted: Accepted) -> dict[int, AcceptedEnvelope]:
    """Return the envelopes by their places among all recipients of the request."""
    places = range(len(accepted.envelopes) + len(accepted.refused))
    refused = frozenset(accepted.refused)
    taken = (place for place in places if place not in refused)
    return dict(zip(taken, accepted.envelopes, strict=True))


def _refuse(prepared: Prepared, refused: Sequence[int], quota: Quota) -> None:
    """Let the messages that the quota has no room for be answered so; each is refused whole."""
    places = frozenset(refused)
    for number, one in enumerate(prepared.request_messages):
        if isinstance(one, SentMessage) and not places.isdisjoint(one.places):
            error = SendError("quota-0001", no_room_text(quota), status_code=403)
            prepared.request_messages[number] = [error]


def fills_in(request: SendRequest) -> bool:
    """Say whether there are variables: with them ten kilobytes can become fifty megabytes."""
    if request.globals_ is not None and request.globals_.variables:
        return True
    return any(type(one) is MessageIn and one.variables for one in request.messages or ())


def _digest(account: Account, key: str, body: bytes) -> bytes:
    """Return what makes a request a repeat. Lengths keep one part from running into the next."""
    digest = blake2b(digest_size=16)
    for part in (str(account.account_id).encode(), PATH.encode(), key.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(body)
    return digest.digest()
