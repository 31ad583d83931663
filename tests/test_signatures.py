"""Public functions have type hints: this checks arguments, ruff checks return types."""

import ast
import re

from conftest import ROOT


def public_functions(body):
    """The public functions of a module and of its public classes, and special methods."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not re.match(r"_(?!_)", node.name):
            yield node


def unhinted(text):
    for function in public_functions(ast.parse(text).body):
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.annotation is None and argument.arg not in ("self", "cls"):
                yield argument.lineno, f"{function.name}: {argument.arg}"


def test_arguments_of_public_functions_have_hints():
    missing = [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for file in sorted((ROOT / "align_keras").rglob("*.py"))
        for line, name in unhinted(file.read_text())
    ]
    assert not missing, "\n".join(missing)


def test_an_argument_without_a_hint_is_seen():
    text = "class A:\n    def f(self, x: int, *args, y=1, **kwargs):\n        def g(z): ..."
    assert list(unhinted(text)) == [(2, "f: y")]
    assert list(unhinted("def _f(x): ...\nclass _B:\n    def f(self, x): ...")) == []
