"""The configuration file: what it may say, and how its faults are named."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from engine.config import Config, ConfigError, load_config, load_typos
from engine.config_values import DnsServer, DomainPattern, ListenAddress, Network, NextHop, Rate


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "eilpost.toml"
    file.write_text(text)
    return load_config(file)


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_an_empty_file_and_no_file_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config() == Config()
    (tmp_path / "eilpost.toml").write_text("")
    assert msgspec.structs.replace(load_config(), loaded_from=None) == Config()
    assert Config().http.listen == ListenAddress("127.0.0.1", 8620)
    assert Config().public_url == "http://127.0.0.1:8620"
    assert Config().control_socket == Path("data/control.sock")


EXAMPLE = Path(__file__).parents[2] / "eilpost.example.toml"


def test_every_key_of_the_example_is_understood() -> None:
    config = load_config(EXAMPLE)
    assert config.resolver.servers == (DnsServer("127.0.0.1", 5300),)
    assert config.next_hop("a.test") == NextHop("127.0.0.1", 2525)
    # What it shows as a default is one; the others are marked as examples.
    defaults = Config()
    shown = msgspec.structs.replace(config.delivery, ehlo_name=defaults.delivery.ehlo_name)
    assert shown == defaults.delivery
    assert msgspec.structs.replace(config.http, public_url="") == defaults.http
    assert (config.smtp, config.intake, config.spool, config.events) == (
        defaults.smtp,
        defaults.intake,
        defaults.spool,
        defaults.events,
    )
    assert config.plans == (defaults.plan("free"),)
    rates = [Rate(20.0, 20), Rate(100.0, 10), Rate(50.0, 5)]
    assert [rule.rate for rule in config.rules] == rates


def test_the_example_shows_every_key() -> None:
    text = EXAMPLE.read_text()
    tables = {
        field.encode_name: field.type if isinstance(field.type, type) else get_args(field.type)[0]
        for field in msgspec.structs.fields(Config)
        if field.encode_name not in ("data_dir", " loaded from ")
    }
    missing = [
        f"{name}.{key.encode_name}"
        for name, table in tables.items()
        for key in msgspec.structs.fields(table)
        # The keys that both doors have are shown once.
        if not re.search(rf"^(# )?{key.encode_name} = ", text, re.MULTILINE)
    ]
    assert missing == []
    assert [name for name in tables if f"[{name}]" not in text] == []


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load_config(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[delivery]\nretry_s = [300, 600, -1]",
            "eilpost.toml: [delivery] retry_s[2]: expected a number > 0.0",
        ),
        ("[delivery]\nretry_s = [inf]", "eilpost.toml: [delivery] retry_s[0]: expected a number"),
        ("[delivery]\nretry_s = [nan]", "eilpost.toml: [delivery] retry_s[0]: expected a number"),
        ("[delivery]\nretry_s = []", "eilpost.toml: [delivery] retry_s: expected a list of"),
        (
            "[delivery]\nretri_s = [1]",
            'eilpost.toml: [delivery] retri_s: unknown key, meant "retry_s"?',
        ),
        ("[deliveries]", 'eilpost.toml: deliveries: unknown key, meant "delivery"?'),
        ("data_dir = 7", "eilpost.toml: data_dir: expected text, got 7"),
        ("delivery = 7", "eilpost.toml: delivery: expected a table, got a whole number"),
        (
            "[delivery]\nport = 70000",
            "eilpost.toml: [delivery] port: expected a whole number <= 65535",
        ),
        (
            '[delivery]\nport = "25"',
            "eilpost.toml: [delivery] port: expected a whole number, got text",
        ),
        (
            '[delivery]\ntls = "maybe"',
            "eilpost.toml: [delivery] tls: expected one of none, opportunistic, required, got",
        ),
        (
            '[delivery]\nehlo_name = "a b"',
            "eilpost.toml: [delivery] ehlo_name: expected a host name",
        ),
        (
            '[delivery]\nprivate_targets = ["10.0.0.1/8"]',
            "eilpost.toml: [delivery] private_targets[0]: expected a CIDR network",
        ),
        (
            '[spool]\nurl = "postgresql://x"',
            "eilpost.toml: [spool] url: expected one of lmdb:, memory:, got 'postgresql://x'",
        ),
        ('[http]\nlisten = "here:80"', "eilpost.toml: [http] listen: expected IP address and port"),
        ('[http]\nlisten = "::1:80"', "eilpost.toml: [http] listen: expected IP address and port"),
        ('[http]\nlisten = "127.0.0.1"', "eilpost.toml: [http] listen: expected IP address and"),
        (
            '[http]\nlisten = "0.0.0.0:80"',
            "eilpost.toml: [http] listen: 0.0.0.0:80 is reachable from outside",
        ),
        (
            '[support]\ncontact = "help@out.example\\r\\nX-Evil: 1"',
            "eilpost.toml: [support] contact: expected one line without spaces around it",
        ),
        (
            '[http]\npublic_url = "mail.example"',
            'eilpost.toml: [http] public_url: expected "https://host"',
        ),
        (
            '[smtp]\nlisten = "192.0.2.1:587"',
            "eilpost.toml: [smtp] listen: 192.0.2.1:587 is reachable from outside",
        ),
        (
            '[http]\ntls_certificate = "c.pem"',
            "eilpost.toml: [http] tls_certificate and tls_key: one is of no use",
        ),
        (
            '[http]\ntls_certificate = "c.pem"\ntls_key = "k.pem"',
            "eilpost.toml: [http] tls_certificate: there is no file",
        ),
        (
            '[resolver]\nservers = ["dns.example"]',
            "eilpost.toml: [resolver] servers[0]: expected IP address",
        ),
        (
            '[[route]]\ndomain = "*.test"\nnext_hop = "127.0.0.1:25"\n'
            '[[route]]\ndomain = "*.test"\nnext_hop = "nowhere"',
            "eilpost.toml: [[route]] 2 next_hop: expected host and port",
        ),
        ('[[route]]\ndomain = "*.test"', "eilpost.toml: [[route]] 1: the key next_hop is missing"),
        (
            '[[route]]\ndomain = "a..b"\nnext_hop = "127.0.0.1:25"',
            "eilpost.toml: [[route]] 1 domain: expected a domain",
        ),
        ('[[rule]]\nrate = "1/s"', "eilpost.toml: [[rule]] 1: it says for nobody"),
        (
            '[[rule]]\ndestination = "*"\nrate = "20 per second"',
            "eilpost.toml: [[rule]] 1 rate: expected a rate like",
        ),
        ('[[rule]]\ndestination = "*"\nrate = "0/s"', "eilpost.toml: [[rule]] 1 rate: expected"),
        ('[[plan]]\nname = "a"\n[[plan]]\nname = "a"', "eilpost.toml: [[plan]] 2 name: 'a' is"),
        ("a = 1\nb = ", "eilpost.toml: no TOML: Invalid value (at end of document)"),
    ],
)
def test_a_fault_names_file_key_and_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert fault(tmp_path, text).startswith(expected)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "eilpost.toml").write_bytes(b'data_dir = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8 at octet 12"):
        load_config(tmp_path / "eilpost.toml")


def test_relative_paths_are_relative_to_the_file_they_stand_in(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    (tmp_path / "key.pem").touch()
    config = load(
        tmp_path,
        'data_dir = "here"\n[http]\nlisten = "0.0.0.0:443"\ntls_certificate = "cert.pem"\n'
        'tls_key = "key.pem"\n[delivery]\nehlo_name = "out.example"',
    )
    assert config.data_dir == tmp_path / "here"
    assert config.http.tls_key == tmp_path / "key.pem"
    assert config.public_url == "https://out.example:443"
    assert config.contact == "postmaster@out.example"


def test_a_proxy_in_front_allows_plain_text_on_any_address(tmp_path: Path) -> None:
    config = load(tmp_path, '[http]\nlisten = "0.0.0.0:80"\nbehind_proxy = true')
    assert config.http.listen.port == 80


def test_the_free_plan_exists_and_can_be_replaced(tmp_path: Path) -> None:
    free = Config().plan("free")
    assert free is not None
    assert (free.messages_per_day, free.messages_per_month) == (200, 6000)
    assert Config().plan("gold") is None
    own = load(tmp_path, '[[plan]]\nname = "free"\nmessages_per_day = 5').plan("free")
    assert own is not None
    assert (own.messages_per_day, own.messages_per_month) == (5, None)


def test_the_first_matching_route_wins(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[[route]]\ndomain = "a.test"\nnext_hop = "[::1]:1"\n'
        '[[route]]\ndomain = "*.test"\nnext_hop = "relay.example:2"\n'
        '[[route]]\ndomain = "*.MÜLLER.example"\nnext_hop = "127.0.0.1:3"',
    )
    assert config.next_hop("a.test") == NextHop("::1", 1)
    assert config.next_hop("b.c.test") == NextHop("relay.example", 2)
    assert config.next_hop("x.xn--mller-kva.example") == NextHop("127.0.0.1", 3)
    assert config.next_hop("test") is None
    assert config.next_hop("atest") is None


def test_files_with_typing_errors_come_on_top_of_those_that_ship(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('[typo]\n"gmial.com" = "gmial.example"\n"a.test" = "b.test"')
    (tmp_path / "two.toml").write_text('real = ["a.test"]')
    config = load(tmp_path, '[intake]\ntypo_files = ["one.toml", "two.toml"]')
    typos = load_typos(config.intake.typo_files)
    assert typos.right_domain("gmial.com") == "gmial.example"
    assert typos.right_domain("a.test") is None
    assert typos.right_domain("yaho.com") == "yahoo.com"
    assert load_typos().right_domain("gmial.com") == "gmail.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[typo]\n"gmial" = "gmail.com"', "typo 'gmial': is no domain: the domain has no dot"),
        ('[typo]\n"a.test" = 5', "typo 'a.test': expected the right domain as text, got 5"),
        ('[typo]\n"gmail.com" = "a.test"', "typo 'gmial.com': leads to 'gmail.com', which is"),
        ('[typos]\n"a.test" = "b.test"', 'typos: unknown key, meant "typo"?'),
        ("real = [1]", "[[real]] 1: expected text, got a whole number"),
        ('[typo]\n"a.test" = "b.test"\n"a.test" = "c.test"', "no TOML: "),
        ('[typo]\n"a.test" "b.test"', "no TOML: Expected '=' after a key in a key/value pair (at "),
    ],
)
def test_a_fault_in_a_file_with_typing_errors_names_that_file_and_the_entry(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "ours.toml").write_text(text)
    found = fault(tmp_path, '[intake]\ntypo_files = ["ours.toml"]')
    assert found.startswith("ours.toml: "), found
    assert said in found


def test_a_missing_file_with_typing_errors_is_named(tmp_path: Path) -> None:
    found = fault(tmp_path, '[intake]\ntypo_files = ["ours.toml"]')
    assert found == "ours.toml: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "per_s", "burst"),
    [
        ("20/s, burst 20", 20.0, 20),
        ("100/min", 100 / 60, 1),
        ("1000/h", 1000 / 3600, 1),
        ("0.5/s", 0.5, 1),
        ("1000/s", 1000.0, 100),
        ("86400/day,burst 3", 1.0, 3),
    ],
)
def test_rates_in_all_their_units(text: str, per_s: float, burst: int) -> None:
    assert Rate.parse(text) == Rate(per_s, burst)


@pytest.mark.parametrize("text", ["20", "/s", "20/s burst", "20/s, burst 0", "-1/s", "1/fortnight"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        Rate.parse(text)


def test_domain_patterns_know_their_width() -> None:
    patterns = [
        DomainPattern.parse(text) for text in ("a.b.example", "*.example", "*", "*.b.example")
    ]
    matching = sorted(patterns, key=lambda pattern: pattern.narrowness, reverse=True)
    assert [str(pattern) for pattern in matching] == [
        "a.b.example",
        "*.b.example",
        "*.example",
        "*",
    ]
    assert all(pattern.matches("a.b.example") for pattern in patterns)


def test_networks_contain_addresses_of_their_family_only() -> None:
    assert "127.0.0.9" in Network.parse("127.0.0.0/8")
    assert "::1" in Network.parse("::1")
    assert "::1" not in Network.parse("127.0.0.0/8")


@pytest.mark.parametrize(
    "url",
    [
        *(
            r"http://out.example/\r\nX-Evil: 1",
            r"http://out\u0000.example",
            "http://out.example/a b",
        ),
        *("http://ann:secret@out.example", "http://out.example/?a=1", "http://out.example/#top"),
        *("javascript:alert(1)", "https://", "http://öut.example", "http://out.example:port"),
    ],
)
def test_a_public_url_is_one_that_may_stand_in_front_of_any_link(tmp_path: Path, url: str) -> None:
    file = tmp_path / "eilpost.toml"
    file.write_text(f'[http]\npublic_url = "{url}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[http\] public_url: expected"):
        load_config(str(file))


@pytest.mark.parametrize(
    "url", ["https://out.example", "http://[::1]:8620", "https://out.example/mail/", "HTTP://X:1"]
)
def test_a_public_url_may_have_a_port_and_a_path(tmp_path: Path, url: str) -> None:
    file = tmp_path / "eilpost.toml"
    file.write_text(f'[http]\npublic_url = "{url}"\n', encoding="utf-8")
    assert load_config(str(file)).public_url == url.rstrip("/")
