from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


def requirements(name: str) -> list[Requirement]:
    lines = (line.split("#", 1)[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def pins(name: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for requirement in requirements(name):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version(pin: Requirement) -> str:
    return next(iter(pin.specifier)).version


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_line_is_one_exact_version(lock):
    loose = [str(line) for line in requirements(lock) if [spec.operator for spec in line.specifier] != ["=="]]
    assert len(requirements(lock)) > 150
    assert loose == []


@pytest.mark.parametrize(("source", "lock"), [("requirements.in", LOCKS[0]), ("requirements-dev.in", LOCKS[1])])
def test_every_wish_is_satisfied_by_the_lock(source, lock):
    locked = pins(lock)
    for wish in requirements(source):
        versions = [version(pin) for pin in locked.get(canonicalize_name(wish.name), [])]
        assert versions, f"{wish.name} is in {source} but not in {lock}; run `make lock`"
        assert all(wish.specifier.contains(each, prereleases=True) for each in versions), f"{wish}; run `make lock`"


def test_the_development_lock_holds_the_same_versions():
    product, development = pins(LOCKS[0]), pins(LOCKS[1])
    differing = {
        name
        for name, wanted in product.items()
        if {version(pin) for pin in wanted} != {version(pin) for pin in development.get(name, [])}
    }
    assert differing == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_no_cuda_package_is_locked(lock):
    assert [name for name in pins(lock) if name.startswith(("nvidia-", "cuda-")) or name == "triton"] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_how_it_was_made(lock):
    first = (ROOT / lock).read_text().splitlines()[0]
    assert first.startswith(f"# Compiled from {lock.replace('.txt', '.in')}")
    assert first.endswith("by: make lock")


def test_this_environment_is_the_locked_one():
    applicable = [pin for pin in requirements(LOCKS[1]) if pin.marker is None or pin.marker.evaluate()]
    installed = {pin.name: distribution(pin.name).version.split("+")[0] for pin in applicable}
    assert installed == {pin.name: version(pin) for pin in applicable}
