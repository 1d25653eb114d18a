"""`python -m bench` lists the questions; `python -m bench NAME [sizes]` answers one."""

import argparse
import ast
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

from bench import machine
from bench.report import Report, UsageError, read_sizes
from engine.rehearsal.engine_process import EngineFailed


def questions() -> dict[str, str]:
    """Return the question of each file here that asks one, by the file's name."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first_line = text.partition("\n")[0]
        if first_line.endswith("?"):
            found[path.stem] = first_line
    return found


def main(arguments: list[str]) -> int:
    known = questions()
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the engine.")
    parser.add_argument("name", nargs="?", choices=list(known), help="the question")
    parser.add_argument("sizes", nargs="*", help="like messages=20000 or destinations=1,100")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-dir", type=Path, help="where to put the spool (it is removed)")
    parser.add_argument("--against", choices=["postfix"], help="a peer to measure side by side")
    options = parser.parse_args(arguments)
    if options.name is None:
        width = max(map(len, known))
        for name, question in known.items():
            print(f"{name:<{width}}  {question}")
        return 0
    module = importlib.import_module(f"bench.{options.name}")
    try:
        sizes = read_sizes(options.sizes, module.SIZES)
        if options.against and not hasattr(module, "answer_against"):
            raise UsageError(f"{options.name} measures the engine alone; --against is for others")
    except UsageError as error:
        parser.error(str(error))
    directory = Path(tempfile.mkdtemp(prefix="eilpost-bench-", dir=options.data_dir))
    report = Report(
        known[options.name],
        " ".join(["python -m bench", *arguments]),
        machine.describe(directory),
    )
    try:
        module.answer(sizes, directory, report)
        if options.against:
            module.answer_against(options.against, sizes, directory, report)
    except EngineFailed as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(report.as_json() if options.json else report.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
