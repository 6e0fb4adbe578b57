"""One word for one thing: public class names are unique, exceptions stand in one drawn tree, `__all__` says what is there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src/sampan"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
# folders that implement one interface under the same file and class names, each for its framework
ADAPTERS = ("frameworks/torch/", "frameworks/mindspore/", "frameworks/shapes/", "bench/tensorflow/")
BUILT_IN = {"Exception", "RuntimeError", "ValueError", "TypeError", "OSError", "KeyError", "ArithmeticError", "Warning"}


def classes() -> list[tuple[str, ast.ClassDef]]:
    """Return every public class at the top of a file, with the file."""
    return [
        (file, node)
        for file, tree in sorted(TREES.items())
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def exceptions() -> dict[str, str]:
    """Return every exception class of the package, private ones too, with its file."""
    every = [(file, node) for file, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known = set(BUILT_IN)
    while True:
        bases = {
            node.name: file for file, node in every for base in node.bases if ast.unparse(base).split(".")[-1] in known
        }
        if bases.keys() <= known:
            return bases
        known |= bases.keys()


def test_public_class_names_are_unique():
    places = defaultdict(list)
    for file, node in classes():
        places[node.name].append(
            next((file.removeprefix(folder) for folder in ADAPTERS if file.startswith(folder)), file)
        )
    assert {name: files for name, files in places.items() if len(set(files)) > 1} == {}


def test_every_exception_stands_in_the_one_drawn_tree():
    assert {name: file for name, file in exceptions().items() if file != "errors.py"} == {}
    drawing = ast.get_docstring(TREES["errors.py"]) or ""
    drawn = re.findall(r"^ *(?:[│ ]*[├└]── )?([A-Z]\w+)  ", drawing, re.MULTILINE)
    assert sorted(drawn) == sorted(exceptions())


def exported(tree: ast.Module) -> list[str] | None:
    """Return a file's `__all__`, or None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize("file", [file for file, tree in sorted(TREES.items()) if exported(tree) is not None])
def test_all_names_what_is_there(file: str):
    tree, listed = TREES[file], exported(TREES[file]) or []
    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    there = set(own)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            there |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):  # that of a type checker stands below a condition
            there.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            there.add(node.id)
    assert len(listed) == len(set(listed))
    assert set(listed) <= there
    if not file.startswith(ADAPTERS):  # these list what the framework interface asks of them
        assert {name for name in own if not name.startswith("_")} <= set(listed)
