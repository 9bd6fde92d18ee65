"""What the documents say is what the program does."""

import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import leancnn
from leancnn import cli
from leancnn.commands import commands
from tests.few import few

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCS}
TYPED = ("cc", "aarch64-linux-gnu-gcc", "./classify")  # of the tutorial, which a test runs
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def shell_lines(text):
    """The commands in a page's shell blocks, continued lines joined, comments and pipes cut."""
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            stop = next((i for i, word in enumerate(words) if word in ("|", ">", "2>", "&&")), None)
            if words:
                yield words[:stop]


LINES = [(page, words) for page, text in PAGES.items() for words in shell_lines(text)]


@pytest.mark.parametrize(("page", "words"), LINES, ids=[" ".join(words) for _, words in LINES])
def test_every_command_shown_is_one_that_works(page, words):
    while "=" in words[0]:  # VARIABLE=value in front of a command
        words = words[1:]
    if words[0] == "leancnn":
        args, unknown = cli.build_parser().parse_known_args(words[1:])
        assert not unknown
        assert args.command in commands
    elif words[0] == "torchrun":
        place = words.index("leancnn")
        args, unknown = cli.build_parser().parse_known_args(words[place + 1 :])
        assert not unknown
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{word}:", makefile, re.M) for word in words[1:])
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
    else:
        assert words[0] in ("git", "pip", "python", "cd", *TYPED)


@pytest.mark.parametrize("name", list(commands))
def test_every_command_is_shown_in_the_readme_and_has_a_page_and_a_test(name):
    shown = {words[1] for page, words in LINES if page == "README.md" and words[0] == "leancnn"}
    assert name in shown
    page = PAGES[f"docs/{name}.md"]
    assert any(words[:2] == ["leancnn", name] for words in shell_lines(page))
    if (ROOT / "leancnn" / f"{name}.py").exists():
        assert (ROOT / "tests" / f"test_{name}.py").exists()


@pytest.mark.parametrize("name", list(commands))
def test_every_option_of_a_command_is_on_its_page(name):
    parser = cli.build_parser().parse_args([name, *needed(name)]).parser
    everywhere = {"-h", "--help", "--json", "--debug"}
    page = PAGES[f"docs/{name}.md"]
    missing = {option for option in cli.options(parser) if f"`{option}" not in page} - everywhere
    assert not missing


def needed(name):
    """The words without which a command cannot be parsed."""
    if name in ("compile", "export", "quantize"):
        return ["x", "--out", "y"]
    one = {key: ["x"] for key in ("check", "count", "evaluate", "fit", "prune", "report", "serve")}
    return {**one, "eeg": ["check", "x"], "predict": ["x", "y"]}.get(name, [])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page])
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_python_shown_can_be_parsed_and_its_names_exist(page):
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "leancnn" or hasattr(leancnn, node.attr)


def test_the_site_has_every_page():
    trees = re.findall(r"```{toctree}\n(.*?)```", PAGES["docs/index.md"], re.S)
    listed = [line for tree in trees for line in tree.split("\n") if line and line[0] != ":"]
    there = {Path(page).stem for page in PAGES if page.startswith("docs/")} - {"index"}
    assert sorted(listed) == sorted(there)


def test_the_changelog_begins_with_the_version_of_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[?([^\]\s]+)", text, re.M)
    assert next(version for version in versions if version != "Unreleased") == leancnn.__version__


@pytest.mark.parametrize("name", [name for name in leancnn.__all__ if name != "__version__"])
def test_every_public_name_is_documented_and_shown_in_an_example(name):
    assert getattr(leancnn, name).__doc__
    assert f"`{name}" in PAGES["docs/python.md"]
    assert any(f"leancnn.{name}" in path.read_text(encoding="utf-8") for path in EXAMPLES)


SLOW = ("quantize_digits.py", "prune_digits.py", "compile_network.py")


@pytest.mark.parametrize(
    "path",
    few([pytest.param(e, marks=[pytest.mark.slow] * (e.name in SLOW)) for e in EXAMPLES]),
    ids=lambda path: path.name,
)
@pytest.mark.usefixtures("plain_digits")
def test_an_example_is_short_and_runs(path, tmp_path, monkeypatch, capsys):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    words = {"train_digits.py": ["0.2", "run"]}.get(path.name, [])
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "<!-- tables" in text])
def test_the_tables_of_a_page_are_what_results_say(page):
    written = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["written"]
    assert written(PAGES[page], ROOT / "results") == PAGES[page], "run make readme"


def test_a_result_stands_on_its_own_page_or_in_the_readme(tmp_path):
    for name in ("pruning-a", "speed"):
        (tmp_path / f"{name}.json").write_text(
            f'{{"title": "{name}", "command": "x", "machine": {{}}, "rows": [{{"n": 1}}]}}'
        )
    written = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["written"]
    pages = [f"a\n<!-- tables{of} -->\nold\n<!-- /tables -->\nz\n" for of in ("", " pruning", " x")]
    readme, pruning, other = (written(page, tmp_path) for page in pages)
    assert "**speed**" in readme
    assert "pruning-a" not in readme
    assert "**pruning-a**" in pruning
    assert "**speed**" not in pruning
    assert "Nothing yet." in other
    assert all("old" not in page and page.endswith("z\n") for page in (readme, pruning, other))


def test_a_table_shows_every_row_and_its_command(tmp_path):
    (tmp_path / "a.json").write_text(
        '{"title": "T", "command": "leancnn models", "machine": {"cpu": "x"},'
        ' "rows": [{"name": "a|b", "n": 1234}, {"name": "c", "n": 5}]}'
    )
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["tables"]
    lines = tables(tmp_path).splitlines()
    assert lines[2:6] == ["| name | n |", "| --- | --: |", "| a\\|b | 1,234 |", "| c | 5 |"]
    assert "`leancnn models`" in lines[-2]
