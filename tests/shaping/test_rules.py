"""Rules as data: which win, where they stand, what is refused, and what the linter proves."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, ConfigError, ShapingTable, load_config
from engine.config_values import DomainPattern, NamePattern, Rate, ReplyPattern, Step
from engine.shaping.book import RuleBook, Way, first_reaction, flow_rates
from engine.shaping.lint import findings, idle_routes
from engine.shaping.loading import SHIPPED, load_book, placed_routes, read_placed, reload_book
from engine.shaping.receivers import known_domains, usual_host

MX = ("mx1.big.example", "mx2.big.example")


def book_of(tmp_path: Path, main: str, shaping: str = "", *, defaults: bool = False) -> RuleBook:
    (tmp_path / "shaping.toml").write_text(shaping)
    head = f'[shaping]\ndefaults = {str(defaults).lower()}\nfiles = ["shaping.toml"]\n'
    (tmp_path / "eilpost.toml").write_text(head + main)
    return load_book(load_config(tmp_path / "eilpost.toml"))


def fault_of(tmp_path: Path, shaping: str) -> str:
    with pytest.raises(ConfigError) as refused:
        book_of(tmp_path, "", shaping)
    return str(refused.value)


def test_the_narrowest_rule_wins_field_by_field_wherever_it_stands(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        '[[rule]]\ndestination = "*.example"\nrate = "20/s, burst 5"\nconnections_max = 5',
        '[[rule]]\ndestination = "big.example"\nconnections_max = 7\n'
        '[[rule]]\ndestination = "*"\nrate = "100/min"\nconnections_max = 3\ntls = "required"',
    )
    big = book.effective(Way("big.example"))
    assert (big.rate.value, big.connections_max.value) == (Rate(20.0, 5), 7)
    assert (big.tls.value, big.messages_per_connection_max.value) == ("required", 100)
    small = book.effective(Way("small.test"))
    assert (small.rate.value, small.connections_max.value) == (Rate(100 / 60, 1), 3)


def test_each_value_knows_its_file_and_line(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        '\n# [[rule]] in a comment\n[[rule]]\ndestination = "a.test"\nrate = "1/s"',
        '# [[rule]] """\n\n\n[[rule]]\nsite = "*.example"\ntls = "none"',
    )
    effective = book.effective(Way("a.test", MX))
    assert str(effective.rate.place) == f"{tmp_path}/eilpost.toml:6"
    assert str(effective.tls.place) == f"{tmp_path}/shaping.toml:4"
    assert effective.messages_per_connection_max.place is None


def test_a_text_of_many_lines_is_no_place(tmp_path: Path) -> None:
    reaction = (
        "[[reaction]]\nreply = '^4'\nsample = '''450\n[[reaction]]\n[[rule]]'''\n"
        "then = 'rate x0.5'\n"
    )
    (tmp_path / "x.toml").write_text(reaction * 2 + '[[rule]]\nsite = "a.test"\n')
    rules, reactions = read_placed(tmp_path / "x.toml")
    assert [placed.place.line for placed in reactions] == [1, 7]
    assert rules[0].place.line == 13


def test_a_rule_for_a_site_limits_the_site_and_one_for_a_destination_each_of_them(
    tmp_path: Path,
) -> None:
    book = book_of(
        tmp_path,
        '[[rule]]\nsite = "*.big.example"\nrate = "50/s"\nconnections_max = 4\n'
        '[[rule]]\ndestination = "*.test"\nrate = "5/s"\nconnections_max = 9\n'
        '[[rule]]\negress = "out.example"\nrate = "100/s"',
    )
    effective = book.effective(Way("a.test", MX, "out.example"))
    assert effective.rate.value == Rate(5.0, 1)
    assert effective.site_rate.value == Rate(50.0, 5)
    assert effective.egress_rate.value == Rate(100.0, 10)
    assert effective.of_destination().connections_max == 4
    unknown = book.effective(Way("a.test"))
    assert unknown.site_rate.value is None
    assert unknown.of_destination().connections_max == 9


def test_accounts_and_campaigns_have_rates_of_their_own_the_narrowest_of_each_kind(
    tmp_path: Path,
) -> None:
    book = book_of(
        tmp_path,
        '[[rule]]\naccount = "shop*"\nrate = "10/s"\n'
        '[[rule]]\naccount = "shop"\nrate = "20/s"\n'
        '[[rule]]\ncampaign = "spring*"\nrate = "3/s"\n'
        '[[rule]]\naccount = "shop"\ncampaign = "*"\nrate = "4/s"\n'
        '[[rule]]\naccount = "shop"\ndestination = "*.test"\nrate = "5/s"\n'
        '[[rule]]\naccount = "shop"\nsite = "*.big.example"\nrate = "6/s"',
    )
    rules = book.flow_rules(Way("a.test", MX))

    def rates(account: str, campaign: str | None) -> list[tuple[str, str | None, float, int]]:
        return [
            (each.scope, each.place, each.rate.per_s, each.source.line)
            for each in flow_rates(rules, account, campaign)
        ]

    assert sorted(rates("shop", None), key=str) == [
        ("account", "destination", 5.0, 17),
        ("account", "site", 6.0, 21),
        ("account", None, 20.0, 7),
    ]
    # A campaign comes first in what is narrow, its account second.
    assert ("campaign", None, 3.0, 10) in rates("shop", "spring sale")
    assert ("campaign", None, 4.0, 13) in rates("shop", "autumn")
    assert rates("shopping", None) == [("account", None, 10.0, 4)]
    assert rates("other", None) == []
    assert rates("other", "spring") == [("campaign", None, 3.0, 10)]
    # Of all other mail they say nothing.
    effective = book.effective(Way("a.test", MX))
    assert effective.rate.value is effective.site_rate.value is effective.egress_rate.value is None
    assert len(book.flow_rules(Way("a.other"))) == 4


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("spring", "spring", True),
        ("spring", "spring sale", False),
        ("spring*", "spring", True),
        ("spring*", "spring sale", True),
        ("spring*", "Spring", False),
        ("*", "anything", True),
        ("*", None, False),
    ],
)
def test_names_of_accounts_and_campaigns(pattern: str, name: str | None, matches: bool) -> None:
    assert NamePattern.parse(pattern).matches(name) is matches


def test_ones_own_rule_wins_over_a_shipped_one(tmp_path: Path) -> None:
    way = Way("gmail.com", ("gmail-smtp-in.l.google.com",))
    shipped = book_of(tmp_path, "", defaults=True).effective(way)
    assert shipped.of_destination().connections_max == 5
    assert shipped.site_connections_max.place is not None
    assert shipped.site_connections_max.place.file == SHIPPED
    own = '[[rule]]\nsite = "*.google.com"\nconnections_max = 8'
    assert book_of(tmp_path, "", own, defaults=True).effective(way).site_connections_max.value == 8
    assert book_of(tmp_path, "").effective(way).site_connections_max.value is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '\n[[rule]]\ndestination = "*"\nspeed = "1/s"',
            "shaping.toml:4: [[rule]] 1 speed: unknown",
        ),
        ('[[rule]]\nrate = "1/s"', "shaping.toml:1: [[rule]] 1: it says for nobody"),
        (
            '[[rule]]\negress = "out.example"\nconnections_max = 3',
            "shaping.toml:1: [[rule]] 1: connections_max is a limit of a destination or a site",
        ),
        (
            '[[rule]]\naccount = "shop"\nrate = "1/s"\nconnections_max = 3',
            "shaping.toml:1: [[rule]] 1: connections_max cannot differ by account or campaign: a "
            "connection carries the mail of all of them",
        ),
        (
            '[[rule]]\ncampaign = "spring"\nmessages_per_connection_max = 3',
            "shaping.toml:1: [[rule]] 1: messages_per_connection_max cannot differ by account",
        ),
        (
            '[[rule]]\naccount = "shop"\ndestination = "a.test"\ntls = "none"',
            "shaping.toml:1: [[rule]] 1: tls cannot differ by account",
        ),
        (
            '[[rule]]\n\ncampaign = "*spring"\nrate = "1/s"',
            "shaping.toml:3: [[rule]] 1 campaign: expected a name like",
        ),
        (
            '[[rule]]\nsite = "a"\n\nrate = "1/w"',
            "shaping.toml:4: [[rule]] 1 rate: expected a rate",
        ),
        (
            "[[reaction]]\nreply = '('\nsample = '421'\nthen = 'rate x0.5'",
            "shaping.toml:2: [[reaction]] 1 reply: expected a regular expression (RE2)",
        ),
        (
            "[[reaction]]\nreply = '(a)\\1'\nsample = '421'\nthen = 'rate x0.5'",
            "shaping.toml:2: [[reaction]] 1 reply: expected a regular expression (RE2)",
        ),
        (
            "[[reaction]]\nreply = 'a'\nsample = '421'\nthen = 'go home'",
            'shaping.toml:4: [[reaction]] 1 then: expected "rate x0.5"',
        ),
        (
            "[[reaction]]\nreply = 'a'\nthen = 'suspend 1h'",
            "shaping.toml:1: [[reaction]] 1: the key sample is missing",
        ),
        ("[[rule]]\nsite = ", "shaping.toml: no TOML: "),
    ],
)
def test_what_is_broken_is_refused_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    assert fault_of(tmp_path, text).removeprefix(f"{tmp_path}/").startswith(said)


def test_a_reload_reads_all_files_again(tmp_path: Path) -> None:
    book_of(tmp_path, "", '[[rule]]\nsite = "a.test"\nrate = "1/s"')
    config = load_config(tmp_path / "eilpost.toml")
    (tmp_path / "shaping.toml").write_text('[[rule]]\nsite = "a.test"\nrate = "2/s"')
    assert reload_book(config).rules[0].rule.rate == Rate(2.0, 1)
    (tmp_path / "eilpost.toml").write_text('[[rule]]\ndestination = "b.test"\nrate = "3/s"')
    assert Rate(3.0, 1) in [placed.rule.rate for placed in reload_book(config).rules]


def test_what_ships_has_no_fault() -> None:
    book = load_book(Config())
    assert findings(book) == []
    assert len({placed.rule.site for placed in book.rules}) >= 8
    assert load_book(Config(shaping=ShapingTable(defaults=False))).rules == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "[[reaction]]\nreply = '\\\\[HCM1\\\\]'\nsample = '421 [HCM1]'\nthen = 'suspend 1h'",
            ["1: never shown to fire"],
        ),
        (
            "[[reaction]]\nreply = '^4'\nsample = '421 busy'\nthen = 'rate x0.5'\n"
            "[[reaction]]\nsite = 'a.test'\nreply = 'busy'\nsample = '421 busy'\n"
            "then = 'suspend 1h'",
            ["5: never fires on its sample"],
        ),
        (
            "[[reaction]]\nsite = 'a.test'\nreply = '^4'\nsample = '421 busy'\nthen = 'rate x0.5'\n"
            "[[reaction]]\nreply = 'busy'\nsample = '421 busy'\nthen = 'suspend 1h'",
            [],
        ),
        (
            "[[reaction]]\nreply = 'busy'\nsample = 'busy'\nthen = 'suspend 1h'",
            ["1: the sample is no refusal"],
        ),
        ('[[rule]]\nsite = "a.test"', ["1: the rule sets nothing"]),
        (
            '[[rule]]\nsite = "a.test"\nrate = "1/s"\n[[rule]]\nsite = "a.test"\nrate = "2/s"',
            ["1: rate never holds: line 4"],
        ),
        (
            '[[rule]]\nsite = "a.test"\ntls = "none"\n[[rule]]\nsite = "a.test"\ntls = "none"',
            ["1: tls is said again in line 4"],
        ),
        ('[[rule]]\nsite = "a.test"\nrate = "1/s"\n[[rule]]\nsite = "b.test"\nrate = "2/s"', []),
        ('[[rule]]\naccount = "shop"', ["1: the rule sets nothing"]),
        (
            '[[rule]]\naccount = "a"\nrate = "1/s"\n[[rule]]\naccount = "a"\nrate = "2/s"',
            ["1: rate never holds: line 4"],
        ),
        ('[[rule]]\naccount = "a"\nrate = "1/s"\n[[rule]]\ncampaign = "a"\nrate = "2/s"', []),
    ],
)
def test_the_linter_finds(tmp_path: Path, text: str, faults: list[str]) -> None:
    found = [str(finding) for finding in findings(book_of(tmp_path, "", text))]
    assert len(found) == len(faults), found
    for said, expected in zip(found, faults, strict=True):
        assert said.startswith(f"{tmp_path}/shaping.toml:{expected}")


def test_the_first_reaction_that_matches_fires(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        "[[reaction]]\nsite = '*.big.example'\nreply = 'busy'\nsample = '421 busy'\n"
        "then = 'suspend 1h'",
        "[[reaction]]\nreply = '^4'\nsample = '421'\nthen = 'rate x0.5'",
    )
    for hosts, then in ((MX, "suspend 1h"), (("mx.test",), "rate x0.5")):
        placed = first_reaction(book.effective(Way("a.test", hosts)).reactions, "421 busy")
        assert placed is not None
        assert str(placed.reaction.then) == then
    assert first_reaction(book.reactions, "550 no") is None


@given(st.text())
def test_a_reply_of_any_kind_is_searched(reply: str) -> None:
    ReplyPattern.parse("(a*)*b").matches(reply)
    assert ReplyPattern.parse("").matches(reply + "\udcff")


def test_a_catastrophic_expression_costs_no_more_than_its_reply() -> None:
    # A backtracking engine would try 2^2000 ways.
    assert not ReplyPattern.parse("^(a+)+$").matches("a" * 2000 + "b")


@pytest.mark.parametrize(
    ("text", "factor", "rate", "connections", "for_s"),
    [
        ("rate x0.5", 0.5, None, None, 0.0),
        ("suspend 2h", None, None, None, 7200.0),
        ("connections 1 for 30min", None, None, 1, 1800.0),
        ("rate 10/min for 30min", None, Rate(1 / 6, 1), None, 1800.0),
        ("rate 20/s, burst 5 for 1.5 h", None, Rate(20.0, 5), None, 5400.0),
    ],
)
def test_steps(
    text: str, factor: float | None, rate: Rate | None, connections: int | None, for_s: float
) -> None:
    step = Step.parse(text)
    assert (step.factor, step.rate, step.connections) == (factor, rate, connections)
    assert step.for_s == for_s


@pytest.mark.parametrize(
    "text",
    ["rate x2", "rate x0.0", "suspend", "suspend 0s", "connections 0 for 1h", "rate 1 for 1h"],
)
def test_no_steps(text: str) -> None:
    with pytest.raises(ValueError, match=r"step|rate"):
        Step.parse(text)


def test_which_pattern_covers_which() -> None:
    star, below, whole = (DomainPattern.parse(text) for text in ("*", "*.a.test", "b.a.test"))
    assert star.covers(below)
    assert star.covers(whole)
    assert below.covers(whole)
    assert below.covers(DomainPattern.parse("*.c.a.test"))
    assert not whole.covers(below)
    assert not below.covers(star)
    assert not below.covers(DomainPattern.parse("a.test"))


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        (["a.test", "*.test", "*"], []),
        (["*.test", "a.test"], [(2, "a.test", "the route *.test in line 1 comes first")]),
        (["*.test", "*.a.test"], [(2, "*.a.test", "the route *.test in line 1 comes first")]),
        (["*", "*.test"], [(2, "*.test", "the route * in line 1 comes first")]),
        (["a.test", "a.test"], [(2, "a.test", "the route a.test in line 1 comes first")]),
        (["*.a.test", "a.test", "*.test"], []),
        (["10.0.0.1"], [(1, "10.0.0.1", "IP addresses are not accepted")]),
        (["localhost", "*.localhost"], [(1, "localhost", "the domain has no dot")]),
        (["a_b.test"], [(1, "a_b.test", "'_' is not allowed here")]),
        (["*.xn--zzzzzz.test"], [(1, "*.xn--zzzzzz.test", "no valid part of a domain name")]),
    ],
)
def test_routes_that_no_mail_can_take_are_found(
    tmp_path: Path, domains: list[str], said: list[tuple[int, str, str]]
) -> None:
    file = tmp_path / "eilpost.toml"
    file.write_text(
        "".join(
            f'[[route]]\nnext_hop = "127.0.0.1:25"\ndomain = "{domain}"\n' for domain in domains
        )
    )
    found = idle_routes(placed_routes(load_config(file)))
    assert [each.place.line for each in found] == [3 * number - 2 for number, _, _ in said]
    for finding, (_, domain, why) in zip(found, said, strict=True):
        assert finding.text.startswith(f"no mail takes the route {domain}: ")
        assert why in finding.text


def test_of_each_receiver_that_ships_with_rules_a_host_is_known() -> None:
    book = load_book(Config())
    used: set[int] = set()
    for domain in known_domains():
        host = usual_host(domain)
        assert host is not None
        matching = [
            placed.place.line
            for placed in book.rules
            if placed.rule.site is not None and placed.rule.site.matches(host)
        ]
        assert matching, f"{domain}: no rule is about {host}"
        used.update(matching)
    # What companies have there is theirs; nobody knows them by name.
    companies = {"*.mail.protection.outlook.com", "*.mx.microsoft", "*.googlemail.com"}
    unused = {str(each.rule.site) for each in book.rules if each.place.line not in used}
    assert unused <= companies
    assert usual_host("example.com") is None


def test_a_rule_for_a_domain_that_no_address_has_is_found(tmp_path: Path) -> None:
    book = book_of(tmp_path, "", '[[rule]]\ndestination = "10.0.0.1"\nrate = "1/s"\n')
    [finding] = findings(book)
    assert finding.place.line == 1
    assert "never holds: 10.0.0.1: the last part of the domain is a number" in finding.text
