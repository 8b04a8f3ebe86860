"""What the pages say is true of the code: settings, commands, targets, links, invariants, codes, and the format's examples."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from akosha.cli.parser import make_parser
from akosha.errors import IntegrityError
from akosha.lake import layout
from akosha.lake.commits import commit_document, parse_commit
from akosha.lake.documents import unseal
from akosha.lake.removals import encode
from akosha.quality.conservation import PROBLEMS
from akosha.settings import PREFIX, Settings
from akosha.transforms.fingerprints import fingerprints, permutations, shingle_hashes
from akosha.transforms.quantization import quantize
from akosha.uploads import quarantine, sandbox

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "plugins" / "akosha"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INVARIANT = re.compile(r"\bI[1-9]\d?\b")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def commands(page: Path) -> list[str]:
    """What a page tells people to type: whole lines in fences, and inline code."""
    lines = [line.removeprefix("$ ") for _, block in FENCE.findall(page.read_text()) for line in block.splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    return [text.removeprefix(".venv/bin/") for text in [*lines, *spans]]


def table(page: Path, heading: str) -> list[list[str]]:
    """Cells of the rows of the tables below a heading, header and rule left out."""
    section = page.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def codes(cells: list[list[str]]) -> set[str]:
    return {code for row in cells for code in re.findall(r"`([a-z_-]+)`", row[0])}


def test_the_settings_table_is_the_settings():
    written = {row[0].strip("`"): row[1:] for row in table(ROOT / "README.md", "Configuration")}
    for name, field in Settings.model_fields.items():
        default, meaning = written.pop(PREFIX + name.upper())
        expected = "required" if field.is_required() else f"`{field.default}`" if str(field.default) else "(empty)"
        assert (default, meaning) == (expected, field.description)
    others = {name for name in written if name.startswith(PREFIX)}
    assert others == {"AKOSHA_HOME"}


def test_every_setting_named_on_a_page_exists():
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"AKOSHA_HOME"}
    found = {
        (named(page), name) for page in PAGES for name in re.findall(r"AKOSHA_[A-Z0-9_]+[A-Z0-9]", page.read_text())
    }
    assert {pair for pair in found if pair[1] not in known} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_on_a_page_is_one_that_the_parser_accepts(page: Path, capsys: pytest.CaptureFixture[str]):
    typed = [command for command in commands(page) if re.match(r"akosha [a-z]", command)]
    for command in typed:
        try:
            assert callable(make_parser().parse_args(shlex.split(command)[1:]).run)
        except SystemExit:
            pytest.fail(f"{named(page)}: `{command}`: {capsys.readouterr().err}")


def test_the_pages_name_every_verb():
    text = "\n".join(command for page in PAGES for command in commands(page))
    groups = next(action for action in make_parser()._actions if action.choices and action.metavar == "verb")
    assert {verb for verb in groups.choices if not re.search(rf"^(akosha )?{verb}\b", text, re.MULTILINE)} == set()


def test_every_make_target_on_a_page_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = {
        (named(page), match[1])
        for page in PAGES
        for command in commands(page)
        if (match := re.match(r"make ([a-z]+)\b", command))
    }
    assert found
    assert {pair for pair in found if pair[1] not in targets} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(found), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}, target


def test_every_path_of_the_layout_exists():
    block = next(block for _, block in FENCE.findall((ROOT / "README.md").read_text()) if block.startswith("dags/"))
    parents: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [line.split()[0]]
        assert ROOT.joinpath(*parents).exists(), line


def test_every_dag_has_its_row():
    written = {row[0].strip("`") for row in table(ROOT / "README.md", "DAGs")}
    assert written == {path.stem for path in (ROOT / "dags").glob("*.py")}


def invariants() -> list[str]:
    return re.findall(r"^### (I\d+) ", (ROOT / "docs" / "invariants.md").read_text(), re.MULTILINE)


def cited() -> dict[str, set[str]]:
    """Numbers by test file. Only text counts: docstrings, names of parameters, comments are all fine."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    return {named(path): set(INVARIANT.findall(path.read_text())) for path in files}


def test_invariants_are_numbered_without_gaps():
    assert invariants() == [f"I{number}" for number in range(1, len(invariants()) + 1)]


def test_every_invariant_cited_exists():
    known = set(invariants())
    pages = {named(page): set(INVARIANT.findall(page.read_text())) for page in PAGES}
    assert {name: found - known for name, found in (cited() | pages).items() if found - known} == {}


def test_every_invariant_is_cited_by_a_test():
    assert set(invariants()) - set().union(*cited().values()) == set()


def test_every_invariant_says_why_and_how_and_what_fsck_sees():
    text = (ROOT / "docs" / "invariants.md").read_text()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        assert [word for word in ("**Why**", "**How**", "**fsck**") if word not in section] == [], section.split("\n")[
            0
        ]


def test_the_runbook_has_every_reason_for_quarantine():
    sources = "".join(path.read_text() for path in (LIBRARY / "uploads").glob("*.py"))
    in_code = set(re.findall(r'reason="([a-z-]+)"', sources)) | sandbox._MESSAGES.keys()
    assert codes(table(ROOT / "docs" / "runbooks" / "operate.md", "Quarantine")) == in_code
    assert quarantine.WHAT_TO_DO.keys() == in_code


def findings() -> set[str]:
    """Every code that `akosha fsck` can report."""
    found = {f"record_{problem}" for problem in PROBLEMS}
    for path in (LIBRARY / "quality").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"damage", "warn", "note"}
            ):
                found |= _texts(node.args[0])
            if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "code" for name in node.targets):
                found |= _texts(node.value)
    return found


def _texts(node: ast.expr) -> set[str]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_the_runbook_has_every_finding_of_fsck():
    assert codes(table(ROOT / "docs" / "runbooks" / "operate.md", "Damage found by fsck")) == findings()


def test_the_invariants_name_only_findings_that_exist():
    text = (ROOT / "docs" / "invariants.md").read_text()
    lines = re.findall(r"^- \*\*fsck\*\*: (.*?)(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    written = {code for line in lines for code in re.findall(r"`([a-z_]+)`", line)}
    assert written - findings() == set()


FORMAT = ROOT / "docs" / "format.md"


@pytest.mark.parametrize("block", [block for kind, block in FENCE.findall(FORMAT.read_text()) if kind == "json"])
def test_every_example_document_is_intact(block: str):
    kind = json.loads(block)["format"].removeprefix("akosha-").split("/")[0]
    assert unseal(block.encode(), kind=kind, key="docs/format.md")
    with pytest.raises(IntegrityError):
        unseal(block.replace("2026", "2027", 1).encode(), kind=kind, key="docs/format.md")


def test_the_example_commit_has_exactly_the_fields_of_a_commit():
    block = next(
        text for kind, text in FENCE.findall(FORMAT.read_text()) if kind == "json" and "akosha-commit/2" in text
    )
    document = unseal(block.encode(), kind="commit", key="docs/format.md")
    assert commit_document(parse_commit(document, key="docs/format.md")) == {
        name: value for name, value in document.items() if name != "sha256"
    }


def test_every_field_of_a_commit_is_explained():
    text = FORMAT.read_text()
    section = text.split("\n## Commit documents\n")[1].split("\n## ")[0]
    explained = {
        name
        for row in section.splitlines()
        if row.startswith("|")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    document = json.loads(FENCE.findall(section)[0][1])
    fields = {*document, *document["files"][0], *document["keys"][0], *document["graphs"][0]}
    fields |= {*document["uploads"][0]}
    assert fields - explained == set()


def test_the_test_vectors_of_the_format_hold():
    text = " ".join(FORMAT.read_text().split())
    quick = "The quick brown fox jumps over the lazy dog."
    signature = fingerprints([quick])[0].astype("<u4")
    factors, summands = (part.astype("<u4") for part in permutations())
    vector = np.array([[1, -0.5, 0.25, 0]], dtype=np.float32)
    fields = [
        f"`laptop-7` -> {layout.shard_of('laptop-7')}",
        f"`{quick}` has {len(shingle_hashes(quick))} shingles, of which the first hash is {shingle_hashes(quick)[0]}",
        "begins " + ", ".join(str(value) for value in signature[:4]) + f", ends {signature[-1]}",
        hashlib.sha256(signature.tobytes()).hexdigest(),
        hashlib.sha256(factors.tobytes() + summands.tobytes()).hexdigest(),
        f"`a` begins {factors[0]}, {factors[1]}; `b` begins {summands[0]}, {summands[1]}",
        f"`{quantize(vector)[0][0].tolist()}`, scale {quantize(vector)[1][0]:.8f}",
        f"`{encode(np.array([7, 3])).hex(' ')}`",
    ]
    assert [field for field in fields if field not in text] == []
