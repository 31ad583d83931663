"""The floors of the package, checked by its imports: they only go down, and have no cycles."""

import ast
import graphlib
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from foreign_lines import foreign_lines
from short_runs import users_environment

#: Folders, and single modules at the root, from the lowest floor up. A part may import from lower
#: floors, and from its own floor only the parts in ``BESIDE``.
FLOORS = (
    (
        *(
            "errors",
            "remote_files",
            "remote_path",
            "paths",
            "full_disk",
            "processes",
            "leases",
            "locks",
            "lazy",
        ),
        *("uploads", "line_files", "files", "checksums", "figures", "preset_copies", "hub"),
        *("preset_folders", "sharing"),
        *("signals", "version", "keras_internals", "wording", "quiet"),
        *("progress", "progress_drawing"),
    ),
    ("losses", "optimizers", "layers", "distribution"),
    ("preprocessing", "models"),
    ("data", "data.examples", "data.preparation"),
    ("evaluation", "evaluation.tasks", "export", "search"),
    ("runs",),
)
#: Imports between folders of one floor that are allowed.
BESIDE = {
    "remote_files": {"errors"},
    "remote_path": {"remote_files"},
    "paths": {"errors", "remote_path"},
    "full_disk": {"errors"},
    "leases": {"errors", "processes", "remote_path"},
    "locks": {"leases", "paths", "processes", "remote_path"},
    "uploads": {"remote_path"},
    "line_files": {"paths", "remote_path", "uploads"},
    "files": {"errors", "full_disk", "locks", "paths", "processes", "remote_path", "uploads"},
    "checksums": {
        *("errors", "files", "full_disk", "paths", "progress", "remote_path", "uploads"),
    },
    "figures": {"files", "paths", "remote_path"},
    "preset_copies": {"errors", "full_disk", "remote_path", "uploads"},
    "hub": {
        *("errors", "paths", "files", "checksums", "keras_internals", "preset_copies"),
        "preset_folders",
    },
    "preset_folders": {"errors"},
    "progress": {"progress_drawing"},
    "progress_drawing": {"wording"},
    "quiet": {"progress", "signals"},
    "sharing": {"checksums", "errors", "hub", "paths", "preset_copies", "preset_folders"},
    "signals": {"errors"},
    "keras_internals": {"errors"},
    "losses": {"distribution"},
    "layers": {"distribution"},
    "optimizers": {"layers"},
    "models": {"preprocessing"},
    "data": {"data.examples"},
    "data.examples": {"data"},
    "data.preparation": {"data", "data.examples"},
    "evaluation.tasks": {"evaluation"},
    "export": {"evaluation"},
    "search": {"evaluation"},
}
#: Allowed imports from a higher floor, with their reasons.
EXCEPTIONS = {
    ("align_keras.models.exporting", "export"): (
        "`export` and `save` are Keras's names for it; imported inside the methods, so that a "
        "model that is never exported does not load it"
    ),
}
#: The only module of the recipes that tests, benchmarks and notebooks may import.
LIBRARY_OF_RECIPES = "experiments"
PACKAGE = "align_keras"


def python_files(*folders):
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def name_of(file):
    """The module name of a file; a package is named after its folder."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in python_files(PACKAGE)}
RECIPES = {file.stem for file in python_files("recipes")}


def imports_of(text, name="", is_package=False):
    """Every import in a module's text, also inside functions: ``(line, module)``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # A name imported from a package may be one of its modules.
            inner = [f"{module}.{alias.name}" for alias in node.names]
            found = dict.fromkeys(each if each in MODULES else module for each in inner)
            yield from ((node.lineno, each) for each in found)


def own_imports(module):
    """A module's imports of this package: ``(line, module)``."""
    file = MODULES[module]
    for line, found in imports_of(file.read_text(), module, file.name == "__init__.py"):
        if found == PACKAGE or found.startswith(f"{PACKAGE}."):
            yield line, found


def part_of(module):
    """The deepest entry of ``FLOORS`` that a module belongs to; empty for the root."""
    names = module.split(".")[1:]
    known = {part for parts in FLOORS for part in parts}
    ends = [".".join(names[:end]) for end in range(len(names), 0, -1)]
    return next((end for end in ends if end in known), ends[-1] if ends else "")


def floor_of(part):
    found = [floor for floor, parts in enumerate(FLOORS) if part in parts]
    assert found, f"{part} stands on no floor: add it to FLOORS, and say what it may import"
    return found[0]


def may_import(module, part, other):
    if (module, other) in EXCEPTIONS or part in ("", other):
        return True
    if not other:
        return floor_of(part) > floor_of("models")  # the root imports models and lower floors
    if floor_of(part) == floor_of(other):
        return other in BESIDE.get(part, ())
    return floor_of(other) < floor_of(part)


def test_every_part_stands_on_a_floor():
    parts = {part_of(module) for module in MODULES} - {""}
    assert {floor_of(part) for part in parts} == set(range(len(FLOORS)))


def test_imports_go_down_only():
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {found}: {part_of(module)} (floor "
        f"{floor_of(part_of(module))}) must not import {part_of(found) or PACKAGE}"
        for module in MODULES
        for line, found in own_imports(module)
        if not may_import(module, part_of(module), part_of(found))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_one():
    for module, part in EXCEPTIONS:
        assert part in {part_of(found) for _, found in own_imports(module)}, (module, part)
        # The import must be inside a function, so that loading the module does not load the part.
        top = ast.parse(MODULES[module].read_text()).body
        text = "\n".join(ast.unparse(n) for n in top if isinstance(n, ast.Import | ast.ImportFrom))
        assert f"{PACKAGE}.{part}" not in text


def test_no_two_modules_import_each_other():
    sorter = graphlib.TopologicalSorter(
        {
            module: {
                found
                for _, found in own_imports(module)
                if found != module and (module, part_of(found)) not in EXCEPTIONS
            }
            for module in MODULES
            if module != PACKAGE
        }
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_recipes_import_no_recipe_but_the_settings():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports the recipe {found}; move what it wants to "
        f"{PACKAGE}"
        for file in python_files("recipes")
        for line, found in imports_of(file.read_text())
        if found in RECIPES - {LIBRARY_OF_RECIPES}
    ]
    assert not wrong, "\n".join(wrong)


def sources_above():
    """Tests, benchmarks and the cells of the notebooks: ``(where, text)``."""
    for file in python_files("tests", "benchmarks"):
        yield str(file.relative_to(ROOT)), file.read_text()
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(file, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        # Lines for the shell are not Python.
        yield str(file.relative_to(ROOT)), re.sub(r"(?m)^(\s*)[!%].*", r"\1pass", text)


def test_nothing_takes_a_recipe_for_a_library():
    wrong = [
        f"{where}:{line} imports the recipe {found}; run it (runpy, subprocess), or move what it "
        f"wants to {PACKAGE}"
        for where, text in sources_above()
        for line, found in imports_of(text)
        if found in RECIPES - {LIBRARY_OF_RECIPES}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_knows_no_recipe():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {found}"
        for module, file in MODULES.items()
        for line, found in imports_of(file.read_text(), module)
        if found.split(".")[0] in RECIPES | {"recipes", "tests", "conftest"}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_alone_registers_classes_and_loads_nothing_of_the_uses_of_a_model():
    code = (
        "import sys, align_keras, keras\n"
        "assert keras.saving.get_registered_object('align_keras>Lamb') is not None\n"
        "above = ('export', 'search', 'evaluation', 'data', 'runs')\n"
        "names = tuple(f'align_keras.{name}' for name in above)\n"
        "print([name for name in sys.modules if name.startswith(names)])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=users_environment(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert result.stdout.strip() == "[]"
    assert foreign_lines(result.stderr) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import align_keras.hub", "align_keras.hub"),
        ("def f():\n    from align_keras.models import backbone", "align_keras.models.backbone"),
        ("from ..losses import tiled", "align_keras.losses.tiled"),
        ("from . import presets", "align_keras.models.presets"),
        ("from align_keras import Lamb", "align_keras"),
    ],
)
def test_imports_of_every_form_are_seen(text, found):
    assert [module for _, module in imports_of(text, "align_keras.models.backbone")] == [found]


def test_a_wrong_import_would_be_seen():
    assert not may_import("align_keras.losses.tiled", "losses", "models")
    assert not may_import("align_keras.search.page", "search", "export")
    assert not may_import("align_keras.preprocessing.images", "preprocessing", "models")
    assert not may_import("align_keras.models.backbone", "models", "")
    assert may_import("align_keras.runs.reporting", "runs", "losses")
