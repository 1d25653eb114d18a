"""What is served as pages: our files and the chart's, under a strict policy."""

from importlib.machinery import ModuleSpec
from importlib.resources import files
from pathlib import Path

import pytest

from engine.watch import pages
from tests.watch.looking import Look

NOBODY = ("", "")


async def test_every_part_is_served_with_the_policy_and_a_tag(look: Look) -> None:
    names = [file.name for file in files(pages).iterdir() if file.name.endswith((".js", ".css"))]
    for path in ("/", *(f"/assets/{name}" for name in names), "/assets/uplot.js"):
        answer = await look.get(path, NOBODY)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        again = await look.ask(
            "GET", path, NOBODY, headers={"If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304, path


async def test_the_page_has_nothing_inline_and_names_no_other_host(look: Look) -> None:
    page = (await look.get("/", NOBODY)).text
    assert "<script>" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in page.replace(" on ", " ")
    for file in files(pages).iterdir():
        if file.name.endswith((".js", ".css", ".html")):
            text = file.read_text(encoding="utf-8")
            assert "://" not in text.replace("${scheme}://${location.host}", ""), file.name
            assert "innerHTML" not in text
            assert len(text.splitlines()) <= 500, f"{file.name} is cut where its meaning changes"


async def test_the_contact_is_on_the_page_and_cannot_break_it() -> None:
    assert pages.contact_link("help@out.example") == (
        '<a href="mailto:help@out.example">help@out.example</a>'
    )
    link = pages.contact_link("https://out.example/help?a=1&b=2")
    assert link.startswith('<a rel="noreferrer" href="https://out.example/help?a=1&amp;b=2">')
    for hostile in ('"><script>alert(1)</script>', 'a@b"onclick="x', "javascript:alert(1)"):
        made = pages.contact_link(hostile)
        assert "<script" not in made
        assert '"onclick' not in made
        assert "href" not in made or made.startswith('<a href="mailto:')


def test_a_chart_library_that_is_not_the_one_we_know_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(pages.chart_files()) == {"uplot.js", "uplot.css"}
    (tmp_path / "vendor").mkdir()
    for name in ("uplot.iife.min.js", "uplot.min.css"):
        (tmp_path / "vendor" / name).write_text("alert(1)")
    spec = ModuleSpec("youplot", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(pages, "find_spec", lambda name: spec)
    assert pages.chart_files() == {}
    monkeypatch.setattr(pages, "find_spec", lambda name: None)
    assert pages.chart_files() == {}
    assert "/assets/uplot.js" not in {route.pattern for route in pages.routes("")}
