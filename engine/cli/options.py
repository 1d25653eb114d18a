"""Options that every command has, and how a failure leaves the program."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from engine.config import Config

F = TypeVar("F", bound=Callable[..., object])

# Under this key the configuration's file name is kept for whoever asks for it.
_FILE = "engine.cli.config_file"


def config_option(command: F) -> F:
    """Give a command `--config FILE`. It may stand anywhere on the line; the last one counts."""

    def remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[_FILE] = value

    return click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=remember,
        help="Configuration file (default: eilpost.toml, if there is one).",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def load() -> "Config":
    """Return the configuration that the command line names; a faulty one ends the program."""
    from engine.config import ConfigError, load_config

    try:
        return load_config(click.get_current_context().meta.get(_FILE))
    except ConfigError as error:
        from engine.shaping.loading import located

        raise click.ClickException(str(located(error))) from error


def a_domain(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Read a mail domain as lower-case A-labels; what is none is wrong usage."""
    from protocols.addresses import AddressFault, normalise_domain

    domain = normalise_domain(value)
    if isinstance(domain, AddressFault):
        raise click.BadParameter(f"{value} is no domain: {domain.text}.")
    return domain


def domains_given(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Likewise several."""
    return [a_domain(ctx, param, value) for value in values]


@contextmanager
def failures(*expected: type[Exception]) -> Iterator[None]:
    """Turn the expected exceptions into their text on stderr and exit status 1.

    They may come in groups, as nurseries raise them. Whatever is not expected is a bug of ours and
    keeps its traceback.
    """
    try:
        yield
    except expected as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        raise click.ClickException(text_of(group, *expected)) from group


def text_of(group: BaseExceptionGroup[BaseException], *expected: type[Exception]) -> str:
    """Return what the exceptions of a group say, each text once.

    Raises the group itself if anything in it is not expected.
    """
    # Not `except*`: Debian's Python 3.11.2 wraps what is raised inside one in a group again.
    if group.split(expected)[1] is not None:
        raise group
    return "; ".join(dict.fromkeys(_texts(group)))


def _texts(group: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _texts(error)
        else:
            yield str(error)
