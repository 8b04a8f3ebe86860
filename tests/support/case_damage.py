"""Every kind of object of a lake, spoiled on the disk: is it found?"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tests.support.cases import memory_folder
from tests.support.installation import Installation
from tests.support.scenarios import installed

from akosha.jobs import reading

CUT = ("empty", "half", "one byte less")


def kind_of(key: str) -> str:
    """What an object is, from its key."""
    parts = key.split("/")
    if parts[0] == "shards":
        return parts[2]
    if parts[0] == "cold":
        return "cold"
    return parts[0] if parts[0] != "runs" else re.sub("-.*", "", parts[-1])


def objects(request: dict[str, Any]) -> dict[str, list[str]]:
    """Keys of all objects of a lake, reports and probes aside, by kind."""
    lake = Path(request["source"]) / "lake"
    found: dict[str, list[str]] = {}
    for path in sorted(lake.rglob("*")):
        key = path.relative_to(lake).as_posix()
        if path.is_file() and not key.startswith(("reports/", "probe/")) and not path.name.startswith("."):
            found.setdefault(kind_of(key), []).append(key)
    return found


def spoil(request: dict[str, Any]) -> dict[str, Any]:
    """Flip bits of some objects and cut them short, one after the other; what `fsck --read-data` did not find."""
    chance = Random(request["seed"])  # noqa: S311 - drawn again by its seed
    missed: list[str] = []
    done = 0
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="akosha-storm-") as folder:
        shutil.copytree(request["source"], Path(folder) / "case")
        installation = installed(Path(folder) / "case")
        assert _sound(installation)
        for key in request["keys"]:
            path = Path(folder) / "case" / "lake" / key
            sound = path.read_bytes()
            for way in [*(["flip"] * request["flips"]), *CUT[: request["cuts"]]]:
                spoiled = _spoiled(sound, way, chance)
                path.write_bytes(spoiled)
                done += 1
                if _sound(installation):
                    at = [n for n, (one, other) in enumerate(zip(sound, spoiled, strict=False)) if one != other]
                    missed.append(f"{key}: {way} at {at} of {len(sound)}")
            path.write_bytes(sound)
        assert _sound(installation)
    return {"done": done, "missed": missed}


def _sound(installation: Installation) -> bool:
    """As `akosha fsck --read-data` judges: a damaged lake.json included."""
    with installation.applied():
        return bool(reading.fsck_lake(read_data=True)["ok"])


def _spoiled(data: bytes, way: str, chance: Random) -> bytes:
    if way == "flip":
        at = chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    return {"empty": b"", "half": data[: len(data) // 2], "one byte less": data[:-1]}[way]
