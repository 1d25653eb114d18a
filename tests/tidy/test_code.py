"""The code read as text: sizes, marks, modules that nobody imports, names that do not belong."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import COMMANDS
from tests.tidy.tree import ROOT, module_of, python_files, tracked_files

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def too_long_functions(text: str) -> list[str]:
    return [
        f"{node.lineno} {node.name}: {length} lines"
        for node in functions(ast.parse(text))
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def marks(text: str) -> list[str]:
    """Comments that put work off, silences without a reason, and tests that are switched off."""
    unfinished = r"#.*\b(TODO|FIXME|XXX|HACK)\b"
    bare_type_silence = r"#\s*type:\s*ignore(?!\[[\w, -]+\]\s+#?\s*\S)"
    bare_lint_silence = r"#\s*noqa(?!:\s*[A-Z0-9, ]+[^\sA-Z0-9,])"
    switched_off = r"pytest\.mark\.(skip\b|xfail\b)"
    pattern = "|".join((unfinished, bare_type_silence, bare_lint_silence, switched_off))
    return [
        f"{number} {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def imported_modules(file: Path) -> set[str]:
    """Names that a file imports, in any place: modules, and what may be modules in packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # python -m NAME, in a list of arguments
    return found


@pytest.mark.parametrize("file", python_files(), ids=str)
def test_a_file_can_be_read(file: Path) -> None:
    text = (ROOT / file).read_text()
    assert too_long_functions(text) == []
    assert marks(text) == [] or file == Path("tests/tidy/test_code.py")
    lines = text.count("\n")
    assert lines <= FILE_LINES_MAX


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("x = 1  # TODO later", 1),
        ("x = f()  # type: ignore", 1),
        ("x = f()  # type: ignore[arg-type]", 1),
        ("x = f()  # type: ignore[arg-type]  # the stub is wrong about None", 0),
        ("import x  # noqa", 1),
        ("import x  # noqa: F401", 1),
        ("import x  # noqa: F401 - registers its codec", 0),
        ("@pytest.mark.skip(reason='broken')", 1),
        ("@pytest.mark.skipif(not KNOTD, reason='needs Debian package knot')", 0),
        ("todo = 1", 0),
    ],
)
def test_marks_are_found(line: str, count: int) -> None:
    assert len(marks(line)) == count


def test_long_functions_are_found() -> None:
    body = "    pass\n"
    assert too_long_functions("def f():\n" + body * (FUNCTION_LINES_MAX - 1)) == []
    assert too_long_functions("def f():\n" + body * FUNCTION_LINES_MAX) == ["1 f: 71 lines"]


def test_every_module_is_imported_by_somebody() -> None:
    """By the program itself: a module that only tests import does nothing.

    The rehearsal room is there for tests as much as for the demo, so those of other rooms count.
    """
    rooms = ("engine", "protocols", "bench")
    programs = [file for file in python_files() if file.parts[0] in rooms]
    tests = [file for file in python_files() if file.parts[0] == "tests"]
    rehearsing = [file for file in tests if file.parts[1] not in ("rehearsal", "tidy")]
    used = {name for file in programs for name in imported_modules(ROOT / file)}
    used |= {
        name
        for file in rehearsing
        for name in imported_modules(ROOT / file)
        if name.startswith("engine.rehearsal.")
    }
    # The console script imports engine.cli, and that its commands by name.
    used |= {"engine.cli", *(f"engine.cli.{name}" for name in COMMANDS)}
    modules = {
        module_of(file)
        for file in python_files()
        if file.parts[0] in ("engine", "protocols") and file.name != "__init__.py"
    }
    assert sorted(modules - used) == []


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    """What is committed must be true on every machine."""
    hosts = ("py" + "pi.org", "pythonhosted" + ".org", "npm" + "js.org", "debian" + ".org")
    places = ("/work" + "/", "/root" + "/", "/home" + "/", "/tmp" + "/bare")
    wrong = [
        f"{file}: {word}"
        for file in tracked_files()
        for word in (*hosts, *places)
        if word in (ROOT / file).read_text(encoding="utf-8", errors="replace")
    ]
    assert wrong == []


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    entries = [line.strip() for block in lists for line in block.splitlines()]
    assert len(lists) == 2
    assert [entry for entry in entries if not re.search(r"#\s*\S.{8}", entry)] == []


@pytest.mark.parametrize("name", ["tools/demo", "tools/test", "tools/check", ".ci/run"])
def test_programs_have_their_run_bit(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
