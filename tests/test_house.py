"""The house in the large: no circle of imports between files, no question of modality outside its room, short files."""

import ast
import re
from pathlib import Path

import pytest
from test_imports import MODULES, PACKAGE

#: Where a modality's own files and its datasets are: they may know which one they are of.
OWN = ("modalities/", "data/")
#: A branch on modality: what DESIGN calls "asking which one it has".
BRANCHES = (
    r"\bmodality(?:\.name)?\s*(?:(?:==|!=)\s*[\"']|(?:not )?in\s*[(\[{])",
    r"isinstance\([^()]*\b(?:TextCodec|ImageCodec|TextModality|ImageModality)\b",
)
LONGEST_FILE = 330
MOST_LINES = {"": 51_000, "commands": 3_400, "config": 2_150}


def name_of(module: Path) -> str:
    parts = ("aigc_cli", *module.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(module): module for module in MODULES}


def imports_between_files(module: Path) -> set[str]:
    """The modules of ours that a file names, within functions too, and for the type checker alone."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in NAMES else node.module for name in whole)
    return found & set(NAMES) - {name_of(module)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of nodes that reach one another: what is left when nodes without a way in or out are taken away."""
    left = {node: set(others) for node, others in graph.items()}
    while True:
        ends = {node for node, others in left.items() if not others & set(left)}
        ends |= set(left) - set().union(*left.values())
        if not ends:
            break
        left = {node: others for node, others in left.items() if node not in ends}
    return [sorted(left)] if left else []


def test_no_circle_of_imports_between_files() -> None:
    assert not circles({name: imports_between_files(module) for name, module in NAMES.items()})


def test_what_is_said_on_stderr_ends_no_work_when_nobody_reads_it() -> None:
    """``errors.tell`` goes on behind ``2>&1 | head``, where ``print`` raises."""
    said = {module.name for module in MODULES if ", file=sys.stderr" in (PACKAGE / module).read_text(encoding="utf-8")}
    assert said == {"errors.py", "progress.py"}  # that of progress is tqdm's, on a terminal


@pytest.mark.parametrize(
    "graph", [{"a": {"b"}, "b": {"a"}}, {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}], ids=["two", "behind one"]
)
def test_a_circle_is_found(graph: dict[str, set[str]]) -> None:
    assert circles(graph)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_only_a_modality_knows_which_one_it_is(module: Path) -> None:
    if module.as_posix().startswith(OWN):
        pytest.skip("its own room")
    text = (PACKAGE / module).read_text(encoding="utf-8")
    for branch in BRANCHES:
        found = re.search(branch, text)
        assert found is None, f"{module} asks which modality it has: {found.group()}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_files_stay_short(module: Path) -> None:
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("folder", MOST_LINES)
def test_the_package_stays_small(folder: str) -> None:
    lines = sum(
        len((PACKAGE / module).read_text(encoding="utf-8").splitlines())
        for module in MODULES
        if not folder or module.parts[0] == folder
    )
    assert lines <= MOST_LINES[folder], f"{lines} lines in aigc_cli/{folder}"
