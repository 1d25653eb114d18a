"""The README's table of the help page names each test of a sentence, and none that is not there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_sentence_of_the_table_has_its_test_and_each_test_its_sentence() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"\(tests/article/(\w+)\.py\) `(\w+)`", readme)
    there = [
        (file.stem, node.name)
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert sorted(told) == sorted(each for each in there if each[0] != Path(__file__).stem)
