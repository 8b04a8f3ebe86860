from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The one registry that may be named: where torch without CUDA comes from.
TORCH_INDEX = "download.py" + "torch.org"
TORCH_INDEX_FILES = {"deploy/setup.sh", "deploy/Dockerfile", "docker-compose.yaml", ".env.example"}
# Put together from halves, because this file is searched too.
MACHINE_PATHS = re.compile("|".join(["/wo" + "rk/", "/tm" + "p/w/", "/ro" + "ot/", "/opt/(?:wheels|py" + "pi)"]))
REGISTRIES = re.compile("|".join(["py" + r"pi\.org", "python" + r"hosted\.org", re.escape(TORCH_INDEX)]))
BINARY = {".gz", ".duckdb", ".parquet", ".db", ".png", ".npz", ".npy"}


def project_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("the project is not a git checkout, so its own files cannot be told from others")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    files = [path for path in project_files() if path.suffix not in BINARY and "tests/data" not in path.as_posix()]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8", errors="replace") for path in files}


def test_the_plugin_loader_leaves_the_library_alone():
    ignored = (ROOT / "plugins" / ".airflowignore").read_text().split()
    assert "akosha/" in ignored


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    found = {name: MACHINE_PATHS.findall(text) for name, text in texts().items() if MACHINE_PATHS.search(text)}
    assert found == {}


def test_the_only_registry_named_is_the_torch_index():
    named = {name: set(REGISTRIES.findall(text)) for name, text in texts().items() if REGISTRIES.search(text)}
    assert named == {name: {TORCH_INDEX} for name in TORCH_INDEX_FILES}


@pytest.mark.parametrize("script", ["deploy/setup.sh", "deploy/test.sh", "deploy/lock.sh", "deploy/init.sh", ".ci/run"])
def test_scripts_stop_at_the_first_error(script):
    text = (ROOT / script).read_text()
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0


def test_make_alone_lists_its_targets():
    listing = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert [line.split()[1] for line in listing.splitlines()] == phony.group(1).split()
    assert all(len(line.split()) > 3 for line in listing.splitlines())
