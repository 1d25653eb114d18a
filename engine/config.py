"""The configuration: one immutable value, read from one TOML file and checked at load.

Every setting has a default with its reason and, where it has one, a unit in its name. Unknown keys
are refused with their name: a misspelt limit that is silently ignored is a limit that does not
hold. Errors name the file and the key. Relative paths are relative to the file they stand in.

The only module that imports `tomllib`. Accounts, holds and whatever changes while the engine runs
are not configuration; they live in the spool.
"""

import re
import socket
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args
from zoneinfo import available_timezones

import msgspec

from engine.config_faults import UNKNOWN_KEY, explain, steps_of
from engine.config_values import (
    DnsServer,
    DomainPattern,
    ListenAddress,
    NamePattern,
    Network,
    NextHop,
    Rate,
    ReplyPattern,
    Step,
)
from protocols.address_suggestions import DomainTypos, TyposRefused
from protocols.addresses import Address, AddressFault, parse_address

DEFAULT_FILE: Final = "eilpost.toml"
SHIPPED_TYPOS: Final = Path(__file__).with_name("domain_typos.toml")

# Ten years: longer is a typing error, and infinity is no time at which anything happens.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=315_360_000)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
SpoolUrl = Literal["lmdb:", "memory:"]
TlsPolicy = Literal["none", "opportunistic", "required"]


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, the key and what was expected.

    `file` and `steps` (the path of keys, like `rule[0]`, `rate`) say where, if it is one place.
    """

    def __init__(self, text: str, file: Path | None = None, steps: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.file = file
        self.steps = steps


_LABEL_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Links in pages, and in the headers of mails, begin with it.
PUBLIC_URL: Final = re.compile(
    r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[a-z0-9._~/-]*)?", re.IGNORECASE
)
ONE_LINE: Final = "expected one line without spaces around it"
# RFC 5321 4.1.1.1: a domain or an address literal.
EHLO_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Za-z:.]+\]")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the file."""


class _Door(_Table, frozen=True, kw_only=True):
    """What every listening address has in common."""

    tls_certificate: Path | None = None  # PEM, the chain with it; none: plain, so loopback only
    tls_key: Path | None = None  # PEM, without a passphrase: nobody is there at a restart
    # A proxy in front has ended TLS: then plain text is taken on any address.
    behind_proxy: bool = False


class Http(_Door, frozen=True, kw_only=True):
    """`[http]`: mail intake, the API, the stream and the pages, on one port."""

    # Loopback, because without a certificate credentials would cross the network in the clear.
    listen: ListenAddress = ListenAddress("127.0.0.1", 8620)
    public_url: str = ""  # For links in mails and pages; empty: made from `listen`.
    # The same key and body within this time is one request: clients repeat a failed one for three
    # to four minutes, and two mails that are meant to be equal must not be merged longer. 0: never.
    idempotency_window_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 300.0


class Smtp(_Door, frozen=True, kw_only=True):
    """`[smtp]`: mail submission."""

    listen: ListenAddress = ListenAddress("127.0.0.1", 8587)


class Intake(_Table, frozen=True, kw_only=True):
    """`[intake]`: what is said of mail that comes in."""

    # More files with typing errors in domains. One's own customers mistype one's own domains.
    typo_files: tuple[Path, ...] = ()


class SpoolTable(_Table, frozen=True, kw_only=True):
    """`[spool]`: where mail is kept."""

    # Below data_dir, in this process, nothing to install. "memory:" forgets all mail at the end.
    url: SpoolUrl = "lmdb:"


class ResolverTable(_Table, frozen=True, kw_only=True):
    """`[resolver]`: whom to ask for MX records and addresses."""

    servers: tuple[DnsServer, ...] = ()  # None: those of the system, which can reach the world.


class Delivery(_Table, frozen=True, kw_only=True):
    """`[delivery]`: how mail goes out."""

    port: Port = 25  # RFC 5321 4.5.4.2; only tests and closed networks have another.
    ehlo_name: str = msgspec.field(default_factory=socket.gethostname)
    # Most trouble is over in minutes, what is not takes hours. The last value repeats.
    retry_s: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)] = (
        300.0,
        600.0,
        1200.0,
        2400.0,
        4800.0,
        9600.0,
        14400.0,
    )
    # Greylisting ends after a fixed time, mostly five minutes: waiting longer only delays the mail.
    greylist_retry_s: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)] = (300.0, 900.0)
    max_age_s: Seconds = 259_200.0  # Three days outlast a weekend; RFC 5321 4.5.4.1 suggests 4-5.
    tls: TlsPolicy = "opportunistic"  # A third of the receivers' certificates prove nothing anyway.
    connections_per_destination_max: Count = 20  # A ceiling; growth beyond 2 needs good cohorts.
    # An MX record that points inside our own network is a mistake or an attack.
    private_targets: tuple[Network, ...] = ()


class Events(_Table, frozen=True, kw_only=True):
    """`[events]`: how far back the log reaches; whichever limit is met first trims it."""

    retention_s: Seconds = 2_592_000.0  # 30 days: a month's complaints can still be answered.
    retention_bytes: Count = 10_000_000_000  # About 25 million events, a third of a small disk.


class Route(_Table, frozen=True, kw_only=True):
    """`[[route]]`: where the mail of some domains goes instead of to their MX hosts."""

    domain: DomainPattern
    next_hop: NextHop


class Plan(_Table, frozen=True, kw_only=True):
    """`[[plan]]`: what an account may send; without a number, without that limit."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    messages_per_day: Count | None = None
    messages_per_month: Count | None = None


class Rule(_Table, frozen=True, kw_only=True):
    """`[[rule]]`: limits on a way; the narrowest match wins, field by field.

    `site` is compared with the names of a site's MX hosts, `egress` with our EHLO name there. What
    names an account or a campaign limits each that it matches, over all destinations that it
    matches: see `engine.shaping.book`.
    """

    destination: DomainPattern | None = None
    site: DomainPattern | None = None
    egress: DomainPattern | None = None
    account: NamePattern | None = None
    campaign: NamePattern | None = None
    rate: Rate | None = None
    connections_max: Count | None = None
    messages_per_connection_max: Count | None = None
    tls: TlsPolicy | None = None

    def __post_init__(self) -> None:
        if self.is_of_flow:
            self._check_flow()
            return
        if self.destination is None and self.site is None and self.egress is None:
            raise ValueError(
                "it says for nobody: give destination, site, egress, account or campaign"
            )
        if self.connections_max is not None and self.destination is None and self.site is None:
            raise ValueError("connections_max is a limit of a destination or a site: give one")

    @property
    def is_of_flow(self) -> bool:
        """Whether it is about the mail of some accounts or campaigns, not about all mail."""
        return self.account is not None or self.campaign is not None

    def _check_flow(self) -> None:
        for name in ("connections_max", "messages_per_connection_max", "tls"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} cannot differ by account or campaign: a connection carries the mail "
                    "of all of them in turn; they can have a rate"
                )


class Reaction(_Table, frozen=True, kw_only=True):
    """`[[reaction]]`: what follows from a reply; the first one that matches counts.

    `sample` is a reply that it is meant for, so that the linter can prove that it fires.
    """

    destination: DomainPattern | None = None
    site: DomainPattern | None = None
    reply: ReplyPattern
    sample: Annotated[str, msgspec.Meta(min_length=3, max_length=2048)]
    then: Step


class ShapingTable(_Table, frozen=True, kw_only=True):
    """`[shaping]`: files with rules, kept apart because other people edit them, and more often."""

    # What the largest receivers publish or are known for; one's own rules come on top.
    defaults: bool = True
    files: tuple[Path, ...] = ()


class Support(_Table, frozen=True, kw_only=True):
    """`[support]`: whom to ask; shown on pages and in errors."""

    # It stands in a header of each error.
    contact: Annotated[str, msgspec.Meta(max_length=200)] = (
        ""  # Empty: postmaster at the EHLO name, an address that RFC 5321 4.5.1 demands.
    )


class StatusTable(_Table, frozen=True, kw_only=True):
    """`[status]`: the public page that says what works."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "Eilpost"
    # A receiving site is named on the page when so many mails wait for it, of so many accounts:
    # what concerns one sender only is that sender's affair. (With fewer accounts, of all of them.)
    site_messages_min: Count = 100
    site_accounts_min: Count = 2
    sender: str = ""  # Of mail to its subscribers; empty: status at the EHLO name.
    # Digests go out at this hour, when people begin to read; weekly ones on Mondays.
    digest_hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 8
    time_zone: str = "UTC"  # An IANA name; that hour is meant there.


class DestinationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds towards one destination after all rules are laid over the defaults."""

    rate: Rate | None
    connections_max: int
    messages_per_connection_max: int
    tls: TlsPolicy


FREE_PLAN: Final = Plan(name="free", messages_per_day=200, messages_per_month=6000)


class Config(_Table, frozen=True, kw_only=True):
    """The whole configuration. `Config()` is what serves without a file."""

    data_dir: Path = Path("data")
    http: Http = Http()
    smtp: Smtp = Smtp()
    intake: Intake = Intake()
    spool: SpoolTable = SpoolTable()
    resolver: ResolverTable = ResolverTable()
    delivery: Delivery = msgspec.field(default_factory=Delivery)
    events: Events = Events()
    routes: tuple[Route, ...] = msgspec.field(default=(), name="route")
    plans: tuple[Plan, ...] = msgspec.field(default=(), name="plan")
    rules: tuple[Rule, ...] = msgspec.field(default=(), name="rule")
    reactions: tuple[Reaction, ...] = msgspec.field(default=(), name="reaction")
    shaping: ShapingTable = ShapingTable()
    support: Support = Support()
    status: StatusTable = StatusTable()
    # Where it was read, set by `load_config`; no key that anybody writes has this name.
    loaded_from: Path | None = msgspec.field(default=None, name=" loaded from ")

    @property
    def control_socket(self) -> Path:
        """The operator's door to the running engine."""
        return self.data_dir / "control.sock"

    @property
    def public_url(self) -> str:
        """Where pages and links are found, without a slash at the end."""
        if self.http.public_url:
            return self.http.public_url.rstrip("/")
        scheme = "https" if self.http.tls_certificate else "http"
        listen = self.http.listen
        if listen.host in ("0.0.0.0", "::"):
            return f"{scheme}://{self.delivery.ehlo_name}:{listen.port}"
        return f"{scheme}://{listen}"

    @property
    def contact(self) -> str:
        return self.support.contact or f"postmaster@{self.delivery.ehlo_name}"

    @property
    def status_sender(self) -> Address | None:
        """Who mail to the status page's subscribers is from; None where there can be none."""
        name = self.delivery.ehlo_name.lower().rstrip(".")
        if not self.status.sender and "." not in name and _LABEL_NAME.fullmatch(name):
            # A machine without a domain writes to its own network, where that is enough.
            return Address("status", name, f"status@{name}")
        read = parse_address(self.status.sender or f"status@{name}")
        return None if isinstance(read, AddressFault) else read

    def plan(self, name: str) -> Plan | None:
        """Return the plan of that name; `free` exists without being configured."""
        for plan in (*self.plans, FREE_PLAN):
            if plan.name == name:
                return plan
        return None

    def next_hop(self, destination: str) -> NextHop | None:
        """Return where the first matching route sends this domain's mail; None: ask for its MX."""
        for route in self.routes:
            if route.domain.matches(destination):
                return route.next_hop
        return None


class _TypoFile(_Table, frozen=True, kw_only=True):
    # Values are checked where the entries are understood: there they can be named.
    typo: dict[str, Any] = {}
    real: tuple[str, ...] = ()


class ShapingFile(_Table, frozen=True, kw_only=True):
    """One file of `[shaping] files`."""

    rules: tuple[Rule, ...] = msgspec.field(default=(), name="rule")
    reactions: tuple[Reaction, ...] = msgspec.field(default=(), name="reaction")


class CampaignFile(_Table, frozen=True, kw_only=True):
    """`eilpost send --template FILE`: what all mails of a campaign share; see the command."""

    campaign: str | None = None
    account: str | None = None
    sender: str | None = msgspec.field(default=None, name="from")
    reply_to: str | None = None
    subject: str | None = None
    text: str | None = None
    text_file: Path | None = None
    html: str | None = None
    html_file: Path | None = None
    headers: dict[str, str] = {}
    lane: str | None = None


def load_config(path: str | Path | None = None) -> Config:
    """Read and check a configuration file.

    Without a path it is `eilpost.toml` in the current directory, or the defaults if there is no
    such file; a file that was named and is missing is an error. Raises ConfigError. The files of
    `[shaping]` are read by `engine.shaping`, which may do so again while the engine runs.
    """
    if path is None and not Path(DEFAULT_FILE).exists():
        return Config()
    file = Path(path or DEFAULT_FILE)
    config = _read(file, Config)
    config = msgspec.structs.replace(config, loaded_from=file)
    if fault := _first_contradiction(config):
        raise ConfigError(f"{file}: {fault}")
    if config.intake.typo_files:
        load_typos(config.intake.typo_files)
    return config


def read_shaping_file(file: Path) -> ShapingFile:
    """Read and check one file of rules. Raises ConfigError."""
    return _read(file, ShapingFile)


def read_campaign_file(file: Path) -> CampaignFile:
    """Read a campaign's template. Raises ConfigError."""
    return _read(file, CampaignFile)


def load_typos(files: Iterable[Path] = ()) -> DomainTypos:
    """Return the typing errors that ship with the engine, with those in `files` on top, in order.

    Raises ConfigError.
    """
    typos = DomainTypos()
    for file in (SHIPPED_TYPOS, *files):
        read = _read(file, _TypoFile)
        try:
            typos = typos.extended(read.typo, read.real)
        except TyposRefused as error:
            raise ConfigError(f"{file}: {error}") from error
    return typos


_CHOICES: Final = {"tls": get_args(TlsPolicy), "url": get_args(SpoolUrl)}
T = TypeVar("T", bound=_Table)


def _read(file: Path, kind: type[T]) -> T:
    """Read one TOML file into `kind`, its relative paths made relative to the file's place."""

    def read_value(value_type: type[Any], value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {value!r}")
        if value_type is Path:
            return file.parent / Path(value).expanduser()
        return value_type.parse(value)

    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        return msgspec.convert(table, kind, dec_hook=read_value)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at octet {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: no TOML: {error}") from error
    except msgspec.ValidationError as error:
        steps = (*steps_of(str(error)), *UNKNOWN_KEY.findall(str(error)))
        raise ConfigError(f"{file}: {explain(str(error), kind, _CHOICES)}", file, steps) from error


def _first_contradiction(config: Config) -> str | None:
    """Return the first fault that lies between two settings, not in one; None if there is none."""
    for name, door in (("http", config.http), ("smtp", config.smtp)):
        if fault := _door_fault(door):
            return f"[{name}] {fault}"
    if config.http.public_url and not PUBLIC_URL.fullmatch(config.http.public_url):
        return f'[http] public_url: expected "https://host", got {config.http.public_url!r}'
    if not EHLO_NAME.fullmatch(config.delivery.ehlo_name):
        return f"[delivery] ehlo_name: expected a host name, got {config.delivery.ehlo_name!r}"
    if config.support.contact and not _is_on_one_line(config.support.contact):
        return f"[support] contact: {ONE_LINE}, got {config.support.contact!r}"
    if fault := _status_fault(config):
        return f"[status] {fault}"
    names = [plan.name for plan in config.plans]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            return f"[[plan]] {number} name: {name!r} is defined twice"
    return None


def _status_fault(config: Config) -> str | None:
    status = config.status
    if not _is_on_one_line(status.name):
        return f"name: {ONE_LINE}, got {status.name!r}"
    if status.sender and config.status_sender is None:
        return f"sender: expected an address like status@out.example, got {status.sender!r}"
    if status.time_zone != "UTC" and status.time_zone not in available_timezones():
        return f"time_zone: expected an IANA name like Europe/Berlin, got {status.time_zone!r}"
    return None


def _is_on_one_line(text: str) -> bool:
    return text.isprintable() and text == text.strip()


def _door_fault(door: Http | Smtp) -> str | None:
    if (door.tls_certificate is None) != (door.tls_key is None):
        return "tls_certificate and tls_key: one is of no use without the other"
    for key, file in (("tls_certificate", door.tls_certificate), ("tls_key", door.tls_key)):
        if file is not None and not file.is_file():
            return f"{key}: there is no file {file}"
    encrypted = door.tls_certificate is not None or door.behind_proxy
    if not door.listen.is_loopback and not encrypted:
        return (
            f"listen: {door.listen} is reachable from outside and would take passwords in the "
            "clear; give tls_certificate and tls_key, or behind_proxy = true"
        )
    return None
