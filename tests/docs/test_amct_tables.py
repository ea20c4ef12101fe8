"""The tables of AMCT's names in docs/amct: each row has a verdict, and what is called the same names its test."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "amct").glob("*.md"))
HEADER = ["AMCT", "here", "what", "test"]
VERDICTS = {"same", "better", "changed", "absent"}


def cells(line):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def rows(page):
    """The rows of a page's tables."""
    for line in page.read_text().splitlines():
        if line.startswith("|") and not set(line) <= set("|-: ") and cells(line) != HEADER:
            yield cells(line)


@cache
def functions_of(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_there_is_a_table_for_each_part_and_the_migration_page_links_it():
    linked = set(re.findall(r"\]\(amct/([a-z_]+\.md)\)", (ROOT / "docs" / "migration.md").read_text()))
    assert linked == {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_row_has_a_verdict_and_what_is_the_same_has_a_test(page):
    found = list(rows(page))
    assert found
    for row in found:
        assert len(row) == len(HEADER), row
        name, verdict, what, test = row
        assert verdict in VERDICTS, row
        if verdict in ("changed", "absent"):
            assert what, f"no reason: {name}"
        if verdict == "same":
            assert test, f"no test: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_row_names_exists(page):
    for name, _, _, test in rows(page):
        for reference in re.findall(r"`([^`]+)`", test):
            file, _, function = reference.partition("::")
            assert function, f"{name}: {reference} names no test"
            assert function.partition("[")[0] in functions_of(file), f"{name}: there is no {reference}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "migration.md"], ids=lambda page: page.stem)
def test_every_linked_file_exists(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
