"""`eilpost shaping`: what holds for a domain and where it stands; a linter that ends with 1."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from engine.cli import main

RULES = '[[rule]]\nsite = "*.big.example"\nrate = "20/min"\ntls = "required"\n'


def run(folder: Path, *arguments: str) -> Result:
    config = folder / "eilpost.toml"
    if not config.exists():
        config.write_text(
            f'data_dir = "{folder}/data"\n[shaping]\nfiles = ["rules.toml"]\n[[route]]\n'
            'domain = "routed.test"\nnext_hop = "mx.big.example:25"\n'
        )
        (folder / "rules.toml").write_text(RULES)
    return CliRunner().invoke(main, ["shaping", *arguments, "--config", str(config)])


def test_show_prints_each_value_with_its_file_and_line(tmp_path: Path) -> None:
    told = run(tmp_path, "show", "a.test", "--site", "mx1.big.example,mx2.big.example", "--json")
    assert told.exit_code == 0, told.output
    rows = {row["setting"]: row for row in map(json.loads, told.output.splitlines())}
    source = f"{tmp_path}/rules.toml:1"
    assert rows["site_rate"] == {"setting": "site_rate", "value": "20/min, burst 1", "from": source}
    assert rows["tls"] == {"setting": "tls", "value": "required", "from": source}
    assert rows["connections_max"] == {"setting": "connections_max", "value": 20, "from": None}


def test_show_knows_a_route_and_says_when_it_knows_no_site(tmp_path: Path) -> None:
    routed = run(tmp_path, "show", "routed.test").output
    assert "routed.test at mx.big.example" in routed
    assert "20/min, burst 1" in routed
    unknown = run(tmp_path, "show", "other.test").output
    assert "at a site that is not known" in unknown
    assert "20/min" not in unknown


def test_show_knows_the_limits_of_accounts_and_campaigns(tmp_path: Path) -> None:
    run(tmp_path, "lint")
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\naccount = "shop"\nrate = "10/s"\n'
        '[[rule]]\ncampaign = "spring*"\ndestination = "*.test"\nrate = "1/s"\n'
    )

    def shown(*arguments: str) -> dict[str, tuple[str, str]]:
        told = run(tmp_path, "show", "a.test", *arguments, "--json")
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
    assert "rate of account shop" in run(tmp_path, "show", "a.test").output
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
