"""What an operator's link buys: once, for a working day, and beyond a restart."""

from collections.abc import Iterator
from itertools import count

from engine.http_server import OperatorSessions
from engine.http_server.operators import SESSION_MS, TOKEN_MS, TOKENS_MAX

KEY = b"k" * 32


class Time:
    def __init__(self) -> None:
        self.unix_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.unix_ms


def texts() -> Iterator[str]:
    return (f"{number:040x}" for number in count(1))


def sessions(now: Time, key: bytes = KEY) -> OperatorSessions:
    return OperatorSessions(now_unix_ms=now, secret_text=texts().__next__, signing_key=key)


def test_a_token_serves_once_and_not_for_ever() -> None:
    now = Time()
    ours = sessions(now)
    token, late = ours.new_token(), ours.new_token()
    assert ours.exchange(token) is not None
    assert ours.exchange(token) is None
    assert ours.exchange("never given out") is None
    now.unix_ms += TOKEN_MS + 1
    assert ours.exchange(late) is None


def test_links_that_nobody_opens_do_not_pile_up() -> None:
    ours = sessions(Time())
    tokens = [ours.new_token() for _ in range(TOKENS_MAX + 5)]
    assert [ours.exchange(token) is not None for token in tokens] == [
        *[False] * 5,
        *[True] * TOKENS_MAX,
    ]


def test_credentials_hold_over_a_restart_until_they_expire() -> None:
    now = Time()
    before = sessions(now)
    bought = before.exchange(before.new_token())
    assert bought is not None
    after = sessions(now)
    assert after.is_operator(bought.api_key, bought.secret_key)
    assert not sessions(now, b"x" * 32).is_operator(bought.api_key, bought.secret_key)
    now.unix_ms += SESSION_MS
    assert not after.is_operator(bought.api_key, bought.secret_key)


def test_nobody_extends_or_invents_credentials() -> None:
    ours = sessions(Time())
    bought = ours.exchange(ours.new_token())
    assert bought is not None
    _, expires, chance = bought.api_key.split("-")
    longer = f"operator-{int(expires, 16) + 1:x}-{chance}"
    assert not ours.is_operator(longer, bought.secret_key)
    for api_key in ("", "operator-", "operator-zz-1", "operator-" + "f" * 500, "shop"):
        assert not ours.is_operator(api_key, bought.secret_key)
    assert not ours.is_operator(bought.api_key, "")
