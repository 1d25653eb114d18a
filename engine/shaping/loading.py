"""From files to a book of rules: the shipped ones, the configuration's, and those of other files.

A fault anywhere refuses the whole, with file and line: half of a set of rules is a set that nobody
wrote. Reads files; decides nothing about their meaning.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from engine.config import Config, ConfigError, Reaction, Rule, load_config, read_shaping_file
from engine.shaping.book import PlacedReaction, PlacedRoute, PlacedRule, RuleBook
from engine.shaping.places import TomlPlaces

SHIPPED: Final = Path(__file__).with_name("defaults.toml")


def load_book(config: Config) -> RuleBook:
    """Return all rules of a configuration, its files read now. Raises ConfigError."""
    own = [_placed_from(config)]
    own += [read_placed(file) for file in config.shaping.files]
    shipped = [read_placed(SHIPPED)] if config.shaping.defaults else []
    return RuleBook(
        rules=[rule for rules, _ in (*shipped, *own) for rule in rules],
        reactions=[reaction for _, reactions in (*own, *shipped) for reaction in reactions],
        connections_max=config.delivery.connections_per_destination_max,
        tls=config.delivery.tls,
    )


def reload_book(config: Config) -> RuleBook:
    """Return the rules as they stand in the files now; of all else the old configuration holds.

    Raises ConfigError.
    """
    return load_book(config if config.loaded_from is None else load_config(config.loaded_from))


def placed_routes(config: Config) -> list[PlacedRoute]:
    """Return the routes of a configuration, in their order, with their places."""
    places = _places_of(config)
    return [
        PlacedRoute(route, places.table("route", number))
        for number, route in enumerate(config.routes)
    ]


def read_placed(file: Path) -> tuple[list[PlacedRule], list[PlacedReaction]]:
    """Return the rules and reactions of one file with their places. Raises ConfigError."""
    try:
        read = read_shaping_file(file)
    except ConfigError as error:
        raise located(error) from error
    return _placed(TomlPlaces(file, _text(file)), read.rules, read.reactions)


def located(error: ConfigError) -> ConfigError:
    """Return the same error with the line in front, if it is about one place in a file."""
    if error.file is None or not error.steps:
        return error
    place = TomlPlaces(error.file, _text(error.file)).of(error.steps)
    return ConfigError(
        str(error).replace(f"{error.file}:", f"{place}:", 1), error.file, error.steps
    )


def _placed_from(config: Config) -> tuple[list[PlacedRule], list[PlacedReaction]]:
    return _placed(_places_of(config), config.rules, config.reactions)


def _places_of(config: Config) -> TomlPlaces:
    file = config.loaded_from
    # A configuration that was put together in the program has rules without lines.
    text = _text(file) if file is not None else ""
    return TomlPlaces(file or Path("configuration"), text)


def _placed(
    places: TomlPlaces, rules: Sequence[Rule], reactions: Iterable[Reaction]
) -> tuple[list[PlacedRule], list[PlacedReaction]]:
    return (
        [PlacedRule(rule, places.table("rule", number)) for number, rule in enumerate(rules)],
        [
            PlacedReaction(reaction, places.table("reaction", number))
            for number, reaction in enumerate(reactions)
        ],
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # What is wrong with the file is said by whoever reads its values.
