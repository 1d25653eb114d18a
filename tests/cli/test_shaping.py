"""`eilpost shaping`: what holds for a domain and where it stands; a linter that ends with 1."""

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from engine.cli import main, shaping_site
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import Records, Zones

RULES = '[[rule]]\nsite = "*.big.example"\nrate = "20/min"\ntls = "required"\n'


TABLE = {
    "big.test": Records(mx=((5, "mx1.big.example"), (9, "mx2.big.example"))),
    "mx1.big.example": Records(a=("192.0.2.1",)),
    "mx2.big.example": Records(a=("192.0.2.2",)),
}


def run(folder: Path, *arguments: str, servers: str = '["127.0.0.1:9"]') -> Result:
    config = folder / "eilpost.toml"
    if not config.exists():
        config.write_text(
            f'data_dir = "{folder}/data"\n[shaping]\nfiles = ["rules.toml"]\n'
            f"[resolver]\nservers = {servers}\n[[route]]\n"
            'domain = "routed.test"\nnext_hop = "mx.big.example:25"\n'
        )
        (folder / "rules.toml").write_text(RULES)
    return CliRunner().invoke(main, ["shaping", *arguments, "--config", str(config)])


def test_show_prints_each_value_with_its_file_and_line(tmp_path: Path) -> None:
    told = run(tmp_path, "show", "a.test", "--site", "mx1.big.example,mx2.big.example", "--json")
    assert told.exit_code == 0, told.output
    rows = {row["setting"]: row for row in map(json.loads, told.output.splitlines())}
    source = f"{tmp_path}/rules.toml:1"
    site = {"hosts": ["mx1.big.example", "mx2.big.example"], "based_on": "--site"}

    def row(setting: str, value: object, place: str | None) -> dict[str, object]:
        return {"setting": setting, "value": value, "from": place, **site}

    assert rows["site_rate"] == row("site_rate", "20/min, burst 1", source)
    assert rows["tls"] == row("tls", "required", source)
    assert rows["connections_max"] == row("connections_max", 20, None)


@pytest.fixture
async def servers(nursery: trio.Nursery) -> AsyncIterator[str]:
    """A name server, as the configuration has it."""
    server = DnsServer(Zones(TABLE))
    await nursery.start(server.serve)
    yield f'["{server.address}:{server.port}"]'
    nursery.cancel_scope.cancel()


async def test_show_knows_a_route_and_asks_the_dns_for_a_site_that_is_not_known_yet(
    tmp_path: Path, servers: str
) -> None:
    async def shown(domain: str) -> str:
        told = await trio.to_thread.run_sync(lambda: run(tmp_path, "show", domain, servers=servers))
        assert told.exit_code == 0, told.output
        return told.output

    routed = await shown("routed.test")
    place = f"{tmp_path}/eilpost.toml:6"
    assert f"routed.test at mx.big.example (the route at {place})" in routed
    assert "20/min, burst 1" in routed
    known = await shown("BIG.test")
    assert "big.test at mx1.big.example, mx2.big.example (MX records looked up now)" in known
    assert "20/min, burst 1" in known
    unknown = await shown("other.test")
    assert "at a site that is not known (550 5.1.2 domain other.test does not exist)" in unknown
    assert "20/min" not in unknown
    gmail = await shown("gmail.com")
    assert "gmail-smtp-in.l.google.com (its usual MX host; the DNS has none: 550" in gmail
    assert "defaults.toml:" in gmail


def test_show_does_not_wait_for_a_name_server_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shaping_site, "LOOK_UP_S_MAX", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        servers = f'["127.0.0.1:{silent.getsockname()[1]}"]'
        told = run(tmp_path, "show", "big.test", servers=servers)
    assert told.exit_code == 0, told.output
    assert "not known (no name server answered within 0.05 s)" in told.output


@pytest.mark.parametrize("domain", ["nonsense@@", "a..b", "", "10.0.0.1"])
def test_show_refuses_what_is_no_domain(tmp_path: Path, domain: str) -> None:
    told = run(tmp_path, "show", domain)
    assert told.exit_code == 2
    assert "Invalid value for 'DOMAIN'" in told.output


def test_show_knows_the_limits_of_accounts_and_campaigns(tmp_path: Path) -> None:
    run(tmp_path, "lint")
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\naccount = "shop"\nrate = "10/s"\n'
        '[[rule]]\ncampaign = "spring*"\ndestination = "*.test"\nrate = "1/s"\n'
    )

    def shown(*arguments: str) -> dict[str, tuple[str, str]]:
        told = run(tmp_path, "show", "a.test", "--site", "mx.a.test", *arguments, "--json")
        assert told.exit_code == 0, told.output
        rows = map(json.loads, told.output.splitlines())
        return {row["setting"]: (row["value"], row["from"]) for row in rows}

    account = ("10/s, burst 1", f"{tmp_path}/rules.toml:1")
    campaign = ("1/s, burst 1", f"{tmp_path}/rules.toml:4")
    both = shown("--account", "shop", "--campaign", "spring sale")
    assert both["rate of the account"] == account
    assert both["rate of the campaign at the destination"] == campaign
    assert "rate of the account" not in shown("--account", "other")
    all_rules = shown()
    assert (all_rules["rate of account shop"], all_rules["rate of campaign spring*"]) == (
        account,
        campaign,
    )
    assert "rate of account shop" in run(tmp_path, "show", "a.test", "--site", "x").output
    assert run(tmp_path, "show", "a.test", "--campaign", "x").exit_code == 2


def test_lint_is_content_with_what_ships_and_with_good_rules(tmp_path: Path) -> None:
    told = run(tmp_path, "lint")
    assert told.exit_code == 0, told.output
    assert "nothing is wrong" in told.output


def test_lint_names_each_fault_with_file_and_line_and_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        "[[reaction]]\nreply = 'a'\nsample = '421 b'\nthen = 'suspend 1h'\n" + RULES * 2
    )
    told = run(tmp_path, "lint", str(file))
    assert told.exit_code == 1
    assert f"{file}:1: never shown to fire" in told.output
    assert f"{file}:5: rate is said again in line 9" in told.output
    file.write_text('[[rule]]\nsite = "a.test"\nrates = "1/s"')
    told = run(tmp_path, "lint", str(file))
    assert told.exit_code == 1
    assert f'{file}:3: [[rule]] 1 rates: unknown key, meant "rate"?' in told.output
