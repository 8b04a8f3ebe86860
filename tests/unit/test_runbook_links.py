"""Every error an operator can see leads to a section of the runbook that exists."""

from __future__ import annotations

import pickle
import re
import sys
from io import StringIO
from pathlib import Path

import pytest

from akosha import errors
from akosha.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
ABSTRACT = {errors.AkoshaError, errors.PermanentError, errors.RetryableError}


def below(kind: type[errors.AkoshaError]) -> list[type[errors.AkoshaError]]:
    return [kind, *(found for part in kind.__subclasses__() for found in below(part))]


KINDS = sorted(set(below(errors.AkoshaError)), key=lambda kind: kind.__name__)


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.*)$", (ROOT / errors.RUNBOOK).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_section_that_an_error_names_exists(kind: type[errors.AkoshaError]):
    assert kind.anchor in anchors()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ABSTRACT], ids=lambda kind: kind.__name__)
def test_no_error_is_left_with_the_general_section(kind: type[errors.AkoshaError]):
    assert kind.anchor != errors.AkoshaError.anchor


def test_the_link_survives_pickling_and_stands_in_what_operators_see():
    error = pickle.loads(pickle.dumps(errors.DiskFullError("no room", setting="AKOSHA_CACHE_DIR")))  # noqa: S301
    assert error.advice == "no room [setting='AKOSHA_CACHE_DIR']; see docs/runbooks/operate.md#a-disk-is-full"


def test_the_command_line_says_where_to_read_on(monkeypatch: pytest.MonkeyPatch):
    said = StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.delenv("AKOSHA_LAKE_URL", raising=False)
    assert main(["status"]) == 1
    assert said.getvalue().strip().endswith("see docs/runbooks/operate.md#a-setting-is-missing-or-wrong")


def test_what_is_rendered_of_damage_names_its_section():
    from akosha.cli import render

    answer = {"findings": [], "checked": {}, "ok": False}
    assert list(render.fsck(answer))[-1] == "see docs/runbooks/operate.md#damage-found-by-fsck"
    assert "damage-found-by-fsck" in anchors()
