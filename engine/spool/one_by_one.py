"""Messages of one request that find room each for itself, and their answer put together.

A request as such finds room for all of it or none. Where that is refused, and it may be taken in
part, its messages are tried in their order. Pure: what is booked already comes from a look-up, and
whoever asks notes what was booked.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from engine.spool.booking import Booking
from engine.spool.handed_in import Accepted, AcceptedEnvelope, AcceptRequest
from engine.spool.interface import QuotaBeyondReach

Book = Callable[[int], list[Booking]]


def places_of(request: AcceptRequest) -> range:
    """Return the places of all recipients of a request."""
    return range(sum(len(message.recipients) for message in request.messages))


def book_request(
    request: AcceptRequest,
    free: Collection[int],
    passed: Collection[int],
    book: Book,
    use: Callable[[Booking], object],
) -> tuple[list[Booking], set[int]]:
    """Book the recipients of a request; return the days in their order, and who is refused.

    Those at the places in `free` need no room, `passed` ones get nothing. `book(count)` finds days,
    `use` notes each at once. Raises QuotaBeyondReach if the request is to be taken whole.
    """

    needless = frozenset(free).union(passed)
    try:
        bookings = book(len(places_of(request)) - len(needless))
    except QuotaBeyondReach:
        if not request.one_by_one:
            raise
        return _book_units(request, needless, passed, book, use)
    for each in bookings:
        use(each)
    return bookings, set()


def _book_units(
    request: AcceptRequest,
    needless: Collection[int],
    passed: Collection[int],
    book: Book,
    use: Callable[[Booking], object],
) -> tuple[list[Booking], set[int]]:
    bookings: list[Booking] = []
    refused: set[int] = set()
    for unit in request.units():
        try:
            found = book(sum(place not in needless for place in unit))
        except QuotaBeyondReach:
            refused.update(place for place in unit if place not in passed)
            continue
        for each in found:
            use(each)
        bookings += found
    return bookings, refused


def places_taken(request: AcceptRequest, first: Accepted | None) -> frozenset[int]:
    """Return the places that an earlier answer to the same request has envelopes for."""
    if first is None:
        return frozenset()
    return frozenset(places_of(request)).difference(first.refused)


def answer_of(
    request: AcceptRequest,
    first: Accepted | None,
    made: Mapping[int, AcceptedEnvelope],
    repeats: Sequence[int],
    refused: Collection[int],
) -> Accepted:
    """Put an answer together from what was `made` now, by place, and what was in the first one."""
    if first is None:
        # The places are in order already.
        envelopes = [*made.values()]
    else:
        taken = dict(zip(sorted(places_taken(request, first)), first.envelopes, strict=True))
        envelopes = [each for _, each in sorted([*taken.items(), *made.items()])]
    return Accepted(envelopes, repeats=tuple(repeats), refused=tuple(sorted(refused)))
