"""Typing errors in domains: what is suggested, what never is, and which lists are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from engine.config import load_typos
from protocols.address_suggestions import DomainTypos, TyposRefused
from protocols.addresses import Address, AddressFault, normalise_domain, parse_address

SHIPPED = load_typos()

# Where people do have mailboxes. Written down apart from the shipped list, which must not touch it.
REAL_DOMAINS_TEXT = """
gmail.com googlemail.com gmail.co outlook.com outlook.de outlook.fr outlook.es outlook.at
outlook.it outlook.jp outlook.co.th hotmail.com hotmail.de hotmail.fr hotmail.it hotmail.es
hotmail.co.uk hotmail.be hotmail.nl hotmail.ch hotmail.com.br hotmail.se hotmail.dk live.com
live.de live.fr live.nl live.co.uk live.at live.se msn.com passport.com yahoo.com yahoo.de
yahoo.fr yahoo.it yahoo.es yahoo.co.uk yahoo.co.in yahoo.in yahoo.ca yahoo.gr yahoo.com.br
yahoo.com.ar yahoo.co.jp yahoo.at yahoo.dk yahoo.se yahoo.ie yahoo.pl ymail.com rocketmail.com
aol.com aol.de aol.fr aol.it aol.co.uk aim.com icloud.com me.com mac.com gmx.de gmx.net gmx.at
gmx.ch gmx.com gmx.org gmx.eu gmx.info gmx.biz gmx.fr gmx.it gmx.es gmx.co.uk gmx.us gmx.li web.de
t-online.de t-online.com magenta.de freenet.de arcor.de vodafone.de vodafonemail.de kabelmail.de
unitybox.de unity-mail.de online.de 1und1.de ionos.de o2online.de o2mail.de genion.de
alice-dsl.net alice-dsl.de alice.de ewetel.de ewe.net netcologne.de versanet.de htp-tel.de
osnanet.de email.de mail.de emailn.de directbox.com smart-mail.de firemail.de lycos.de epost.de
posteo.de posteo.net posteo.at posteo.ch mailbox.org tutanota.com tutanota.de tutamail.com tuta.io
tuta.com keemail.me protonmail.com protonmail.ch proton.me pm.me fastmail.com fastmail.fm zoho.com
zohomail.com zohomail.eu hey.com mailo.com mailo.eu net-c.com mail.com email.com usa.com post.com
europe.com mail.ru bk.ru inbox.ru list.ru internet.ru yandex.ru yandex.com ya.ru rambler.ru
ukr.net i.ua meta.ua aon.at a1.net chello.at liwest.at inode.at bluewin.ch hispeed.ch sunrise.ch
swissonline.ch orange.fr wanadoo.fr free.fr laposte.net sfr.fr neuf.fr bbox.fr numericable.fr
cegetel.net libero.it virgilio.it tiscali.it alice.it tin.it inwind.it iol.it fastwebnet.it pec.it
btinternet.com btopenworld.com sky.com virginmedia.com virgin.net talktalk.net ntlworld.com
blueyonder.co.uk plus.net ziggo.nl kpnmail.nl kpnplanet.nl planet.nl home.nl hetnet.nl xs4all.nl
telenet.be skynet.be proximus.be wp.pl o2.pl onet.pl interia.pl interia.eu gazeta.pl seznam.cz
email.cz centrum.cz post.cz atlas.cz comcast.net verizon.net att.net sbcglobal.net bellsouth.net
cox.net charter.net earthlink.net optonline.net frontier.com juno.com netzero.net rogers.com
shaw.ca telus.net sympatico.ca videotron.ca qq.com foxmail.com 163.com 126.com yeah.net sina.com
sina.cn sohu.com aliyun.com naver.com daum.net hanmail.net nate.com docomo.ne.jp ezweb.ne.jp
softbank.ne.jp rediffmail.com bigpond.com bigpond.net.au optusnet.com.au iinet.net.au uol.com.br
bol.com.br terra.com.br ig.com.br telia.com
"""
REAL_DOMAINS = REAL_DOMAINS_TEXT.split()

# One slip for each of the largest providers, as people make them.
SLIPS_TEXT = """
gmial.com>gmail.com gmai.com>gmail.com gamil.com>gmail.com gmail.con>gmail.com
googlmail.com>googlemail.com hotmial.com>hotmail.com hotmal.de>hotmail.de outlok.com>outlook.com
outllok.de>outlook.de yaho.com>yahoo.com yahooo.de>yahoo.de ymial.com>ymail.com aoll.com>aol.com
iclould.com>icloud.com gmx.ed>gmx.de gmx.nte>gmx.net gxm.net>gmx.net web.ed>web.de web.dee>web.de
tonline.de>t-online.de t-onlne.de>t-online.de t.online.de>t-online.de frenet.de>freenet.de
acror.de>arcor.de vodaphone.de>vodafone.de kablemail.de>kabelmail.de 02online.de>o2online.de
netkologne.de>netcologne.de psoteo.de>posteo.de mailbox.ogr>mailbox.org tutanta.de>tutanota.de
protonmial.com>protonmail.com porton.me>proton.me fatsmail.com>fastmail.com bluwin.ch>bluewin.ch
chelo.at>chello.at ornage.fr>orange.fr wannadoo.fr>wanadoo.fr lapost.net>laposte.net
libreo.it>libero.it btintenet.com>btinternet.com zigo.nl>ziggo.nl seznma.cz>seznam.cz
yandx.ru>yandex.ru comcst.net>comcast.net verzion.net>verizon.net sbcgobal.net>sbcglobal.net
gmial.con>gmail.com firma.con>firma.com verein.ogr>verein.org
"""
SLIPS = SLIPS_TEXT.split()


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_at_the_large_providers_lead_to_them(slip: str) -> None:
    wrong, _, right = slip.partition(">")
    assert right in REAL_DOMAINS or right in ("firma.com", "verein.org")
    parsed = SHIPPED.parse(f"Tom.Smith@{wrong.upper()}")
    assert isinstance(parsed, Address)
    assert SHIPPED.suggestion(parsed) == f"Tom.Smith@{right}"


def test_nothing_is_suggested_for_a_domain_that_is_real() -> None:
    assert [domain for domain in REAL_DOMAINS if SHIPPED.right_domain(domain) is not None] == []


def test_the_shipped_list_leads_to_real_domains_only() -> None:
    targets = {
        right
        for wrong in SHIPPED.domains()
        if not wrong.startswith("*") and (right := SHIPPED.right_domain(wrong)) is not None
    }
    assert targets <= set(REAL_DOMAINS)
    assert len(targets) >= 80


def test_no_shipped_ending_exists() -> None:
    suffixes = PublicSuffixList(accept_unknown=False)
    endings = [entry for entry in SHIPPED.domains() if entry.startswith("*.")]
    assert endings
    assert [entry for entry in endings if suffixes.publicsuffix(f"x{entry[1:]}")] == []


def test_the_repair_of_a_fault_leads_on_to_the_domain_meant() -> None:
    fault = SHIPPED.parse("Tom@@ gmial.com")
    assert isinstance(fault, AddressFault)
    assert (fault.position, fault.suggestion) == (4, "tom@gmail.com")
    assert SHIPPED.parse("Tom@@ beispiel.de") == parse_address("Tom@@ beispiel.de")
    assert SHIPPED.parse("no address at all") == parse_address("no address at all")


def test_a_suggestion_that_would_be_too_long_is_none() -> None:
    meant = ".".join(["x" * 60] * 4 + ["test"])
    typos = DomainTypos().extended({"short.test": meant})
    long = parse_address(f"{'a' * 64}@short.test")
    short = parse_address("ann@short.test")
    assert isinstance(long, Address)
    assert isinstance(short, Address)
    assert typos.suggestion(long) is None
    assert typos.suggestion(short) == f"ann@{meant}"


def test_later_lists_win() -> None:
    first = DomainTypos().extended({"a.test": "b.test", "*.con": "*.com"})
    assert first.right_domain("a.test") == "b.test"
    changed = first.extended({"a.test": "c.test"})
    assert changed.right_domain("a.test") == "c.test"
    taken_out = first.extended({}, ["a.test", "shop.con"])
    assert taken_out.right_domain("a.test") is None
    assert taken_out.right_domain("shop.con") is None
    assert taken_out.right_domain("other.con") == "other.com"
    assert taken_out.extended({"a.test": "b.test"}).right_domain("a.test") == "b.test"
    assert first.extended({}, ["*.con"]).right_domain("other.con") is None
    # What is real is so for endings that lead to it, too.
    assert first.extended({"x.com": "y.com"}).right_domain("x.con") == "y.com"
    assert first.extended({"x.com": "y.com"}).extended({}, ["x.com"]).right_domain("x.con") == (
        "x.com"
    )
    assert first.right_domain("a.test") == "b.test"


def test_entries_may_be_written_in_any_script() -> None:
    typos = DomainTypos().extended({"Mueler.test": "müller.test"}, ["straße.test"])
    assert typos.right_domain("mueler.test") == "xn--mller-kva.test"
    assert typos.extended({"STRASSE.test": "straße.test"}).right_domain("strasse.test") == (
        normalise_domain("straße.test")
    )


@pytest.mark.parametrize(
    ("typo", "real", "said"),
    [
        ({"gmial": "gmail.com"}, [], "typo 'gmial': is no domain: the domain has no dot"),
        ({"a.test": "b..test"}, [], "typo 'a.test': 'b..test': is no domain: two dots in a row"),
        ({"a.test": 7}, [], "typo 'a.test': expected the right domain as text, got 7"),
        ({"a.test": ["b.test"]}, [], "typo 'a.test': expected the right domain as text"),
        ({"a.test": "A.test"}, [], "typo 'a.test': leads to itself"),
        ({"a.test": "b.test"}, ["a.test"], "typo 'a.test': is listed as real, too"),
        ({"a.test": "b.test", "A.test": "c.test"}, [], "typo 'A.test': is listed twice"),
        ({"*.con": "gmail.com"}, [], "typo '*.con': an ending leads to an ending"),
        ({"*.co.con": "*.com"}, [], "typo '*.co.con': an ending is one top-level domain"),
        ({"*.": "*.com"}, [], "typo '*.': is no domain"),
        ({"*.con": "*.cmo", "*.cmo": "*.com"}, [], "typo '*.con': leads to '*.cmo', which"),
        ({"a.test": "b.test", "b.test": "c.test"}, [], "typo 'a.test': leads to 'b.test', which"),
        ({"a.test": "b.con", "*.con": "*.com"}, [], "typo 'a.test': leads to 'b.con', which"),
        ({}, ["a b.test"], "real 'a b.test': is no domain: a space is not allowed"),
    ],
)
def test_a_list_with_a_fault_is_refused_and_the_entry_named(
    typo: dict[str, object], real: list[str], said: str
) -> None:
    with pytest.raises(TyposRefused) as caught:
        DomainTypos().extended(typo, real)
    assert str(caught.value).startswith(said)


def test_an_entry_cannot_make_an_error_of_what_the_list_leads_to() -> None:
    with pytest.raises(TyposRefused, match=r"leads to 'gmail\.com', which is itself listed"):
        SHIPPED.extended({"gmail.com": "corp.test"})


DOMAINS = st.sampled_from(sorted(entry.replace("*", "firm") for entry in SHIPPED.domains()))
ATEXT = "abcXYZ09!#$%&'*+/=?^_`{|}~-"


@given(st.text(ATEXT, min_size=1, max_size=64), DOMAINS)
def test_a_suggestion_is_a_legal_address_and_needs_no_other(local: str, domain: str) -> None:
    parsed = parse_address(f"{local}@{domain}")
    assert isinstance(parsed, Address)
    suggestion = SHIPPED.suggestion(parsed)
    assert suggestion is not None
    again = parse_address(suggestion)
    assert isinstance(again, Address)
    assert again.local == parsed.local
    assert SHIPPED.suggestion(again) is None


@given(st.text("aT@. \t,<>\"'é\u200b") | st.text(), DOMAINS, st.sampled_from(["", " ", ".", "@ "]))
def test_the_suggestion_of_a_fault_is_legal_and_needs_no_other(
    before: str, domain: str, between: str
) -> None:
    parsed = SHIPPED.parse(f"{before}@{between}{domain}")
    if isinstance(parsed, AddressFault) and parsed.suggestion is not None:
        again = parse_address(parsed.suggestion)
        assert isinstance(again, Address)
        assert SHIPPED.suggestion(again) is None


@given(st.text())
def test_any_text_is_judged_as_without_a_list(text: str) -> None:
    with_list, without = SHIPPED.parse(text), parse_address(text)
    assert type(with_list) is type(without)
    if isinstance(with_list, AddressFault) and isinstance(without, AddressFault):
        assert (with_list.code, with_list.position) == (without.code, without.position)
