"""The house itself: rooms, floors, and what may load torch. README.md draws the plan."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "leancnn"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Folders whose files read in the order of the data.
STAGES = {"channels", "compiler", "cpu_training", "eeg", "prune", "search", "train"}
DRAWERS = {"utils", "util", "common", "helpers", "misc", "core", "manager", "tools", "base"}
LIGHT = [
    "leancnn",
    "leancnn.cli",
    "leancnn.commands",
    "leancnn.data",
    "leancnn.errors",
    "leancnn.preprocess",
    "leancnn.progress",
    "leancnn.recipes",
    "leancnn.plots",
    "leancnn.tables",
    "leancnn.runs",
    "leancnn.safe_files",
    "leancnn.registry",
    "leancnn.records",
    "leancnn.report",
    "leancnn.sections",
]


def block(title):
    """The lines of the fenced block that follows a heading of README.md."""
    return re.search(rf"## {title}\n.*?```\w*\n(.*?)```", README, re.S).group(1).splitlines()


def room(path):
    """`leancnn/models/henet.py` → `models`; `leancnn/train/loop.py` → `train`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module of leancnn that a file imports, wherever in the file, as a path."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            place = ROOT.joinpath(*name.split("."))
            if name.startswith("leancnn."):
                found |= {
                    file
                    for file in (place.with_suffix(".py"), place / "__init__.py")
                    if file.exists()
                }
    doors = {file for file in found if file.name == "__init__.py"}
    # `from leancnn.models._base import x` does not use the door of models.
    through = {
        file.parent for file in found if file.name != "__init__.py" and file.parent != PACKAGE
    }
    return found - {door for door in doors if door.parent in through}


FLOORS = {
    name: int(line.split()[0])
    for line in block("Floors")
    for name in line.split()[1:]
    if line.split()[0].isdigit()
}


def storey(path):
    """Within a family: private files below members, members below the door."""
    if path.parent == PACKAGE:
        return 0
    return 2 if path.name == "__init__.py" else 0 if path.name.startswith("_") else 1


def climbs(path, other):
    """What is wrong with one import, in a few words, or nothing."""
    here, there = room(path), room(other)
    if here != there:
        up, down = FLOORS.get(here, "?"), FLOORS.get(there, "?")
        return "" if "?" not in (up, down) and down < up else f"from floor {up} to {down}"
    if here in STAGES or storey(path) > storey(other) or storey(other) == 0:
        return ""  # stages, not families
    return "the door of its own family" if storey(other) == 2 else "a sibling"


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    rooms = {room(path) for path in SOURCES} - {"__init__", "__main__"}
    assert rooms == FLOORS.keys(), "README.md, Floors: rooms without a floor, or gone"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    if path.parent == PACKAGE and path.name in ("__init__.py", "__main__.py"):
        return  # the front door leads everywhere, and loads what it is asked for
    wrong = {
        str(other.relative_to(ROOT)): why
        for other in imports(path)
        if other not in (path, PACKAGE / "__init__.py") and (why := climbs(path, other))
    }
    assert not wrong


def test_nobody_inside_uses_the_front_door():
    inside = [path for path in SOURCES if path.parent != PACKAGE or path.name[0] != "_"]
    users = [
        str(path.relative_to(ROOT))
        for path in inside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and "leancnn" in [alias.name for alias in node.names])
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "leancnn"
            and "__version__" in [alias.name for alias in node.names]
        )
    ]
    assert not users


def test_nothing_imports_in_a_circle():
    graph = {path: imports(path) - {path} for path in SOURCES}
    graph[PACKAGE / "__init__.py"] = set()
    while leaves := [path for path, needs in graph.items() if not needs & graph.keys()]:
        for path in leaves:
            del graph[path]
    assert not graph, "these import each other, directly or not"


def test_the_map_in_the_readme_is_the_folder():
    lines = [line for line in block("The house") if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("leancnn/"))
    inside = [line.split()[0] for line in lines[start + 1 :] if line.startswith(" ")]
    there = {
        path.name + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if path.name not in ("__pycache__", "__init__.py", "py.typed")
    }
    assert sorted(inside) == sorted(there)
    outside = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert all((ROOT / name).exists() for name in outside)
    ignored = set((ROOT / ".gitignore").read_text(encoding="utf-8").split())
    folders = {
        path.name + "/"
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.iterdir())
    }
    folders = {name for name in folders if not {name, f"/{name}"} & ignored}
    assert {name for name in folders if not name.endswith(".egg-info/")} <= set(outside)


SPEAKS = {
    "progress.py",
    "cli.py",
    "demo.py",
    "commands/_base.py",
    "commands/serve.py",
}  # escaped, each of them
TO_PROGRAMS = {"bench.py", "timed_worker.py", "data/_workers.py"}  # JSON to another process


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_reaches_the_terminal_goes_through_one_place(path):
    name = path.relative_to(PACKAGE).as_posix()
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [call for call in calls if getattr(call.func, "id", "") == "print"]
    assert not prints or name in SPEAKS | TO_PROGRAMS, "use progress.tell"


def test_there_are_no_drawers():
    names = {path.stem.strip("_") for path in PACKAGE.rglob("*") if path.stem != "_base"}
    assert not names & DRAWERS


def test_python_never_stands_deeper_than_one_folder():
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_can_be_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is"
    assert len(text.splitlines()) <= 400


def fresh(code):
    """Run code in a new interpreter; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout.strip()


def test_the_light_rooms_never_load_torch():
    code = "import sys; from importlib import import_module\n"
    code += f"for name in {LIGHT}: import_module(name); assert 'torch' not in sys.modules, name"
    assert fresh(code) == ""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["no"]])
def test_help_loads_nothing_heavy(words):
    code = (
        "import contextlib, io, sys\nfrom leancnn import cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    cli.main({words})\n"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib', 'rich', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert fresh(code) == "[]"


def test_public_names_are_functions_whether_or_not_their_modules_are_loaded():
    code = (
        "import leancnn, leancnn.count, leancnn.predict\nfrom leancnn.count import Cost\n"
        "print(callable(leancnn.count), callable(leancnn.predict), sorted(leancnn.__all__) == "
        "sorted(n for n in leancnn.__all__ if getattr(leancnn, n) is not None))"
    )
    assert fresh(code) == "True True True"


def test_a_public_name_that_does_not_exist_is_an_attribute_error():
    import leancnn

    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        getattr(leancnn, "tarin")  # noqa: B009
    assert set(leancnn.__all__) <= set(dir(leancnn))


@pytest.mark.parametrize(("old", "new"), [("Native", "CompiledNetwork"), ("Road", "Preprocessing")])
def test_a_public_name_of_0_1_still_works_and_says_what_it_is_called_now(old, new):
    import leancnn

    with pytest.warns(DeprecationWarning, match=f"leancnn.{old} is called {new} now"):
        assert getattr(leancnn, old) is getattr(leancnn, new)


def test_every_room_has_tests_of_its_name():
    """A stage or a family by its own name; more of one room stands in test_ROOM_WHAT.py."""
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    rooms = {room(path) for path in SOURCES} - {"__init__", "__main__", "page"}
    assert not {
        name
        for name in rooms
        if name not in tests and not any(t.startswith(f"{name}_") for t in tests)
    }


def test_files_of_tests_can_be_read_in_one_sitting():
    files = (ROOT / "tests").glob("*.py")
    assert not [path for path in files if len(path.read_text("utf-8").splitlines()) > 400]


def test_nine_functions_of_ten_are_short_and_none_is_long():
    """Lines of a function, its signature and docstring left out."""
    lines = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                lines.append(node.end_lineno - first.lineno + 1)
    assert sum(many <= 25 for many in lines) >= 0.9 * len(lines)
    assert max(lines) <= 80
