"""Damage around the database: manifests edited, torn or lying, paths that lead elsewhere, objects missing, renamed or swapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support.mutation_attempts import (
    Attempt,
    Document,
    Kind,
    encoded,
    folder_of,
    manifest,
    objects,
    refused,
)
from tests.support.mutation_sources import REAL, SMALL, Sound, pack, sound

DATABASE = "reflection.duckdb"
GRAPH = "knowledge_graph.duckdb"
Judged = dict[str, Any]
OTHER = "control-small-64"  # a system that has an upload of its own in every batch
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 60, -(1 << 70), 1e308, "", " ", "x" * 2_000, "../../etc/passwd", "\x00", "\u202egnp.exe", "\ud800",
    "NaN", [], [[]], {}, {"$ref": "#"}, "'; DROP TABLE conversations_v2; --", "${jndi:ldap://x}", "%2e%2e%2f", "systems/",
)  # fmt: skip
READABLE = tuple(value for value in HOSTILE if value != "\ud800")  # half a letter is no JSON text
TIMES = (
    "2026-11-20T23:50:54", "2026-11-20T15:50:54.568861-08:00", "2026-11-21T09:20:54+09:30", "20261120T235054Z", "2026-11-20",
    "2026-11-19T00:00:00+00:00", "2026-11-01T00:00:00+00:00", "2015-01-01T00:00:00+00:00", "2014-12-31T23:59:59+00:00",
    "2099-12-31T00:00:00+00:00", "2100-01-02T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00",
    "2026-11-31T00:00:00+00:00", "now", "", None, 0, -1, 1_795_000_000, 1_795_000_000_000, 1e300, "1795000000", [2026, 11, 20],
    "2026-11-20T23:50:60+00:00", "2026-11-20T23:50:54+25:00", "\u0662\u0660\u0662\u0666-11-20T00:00:00+00:00",
)  # fmt: skip


def small(random: Random) -> Sound:
    """Mostly the small uploads: what is damaged here is not the database."""
    return sound(random.choice([*SMALL, *SMALL, random.choice(REAL)]))


def attempt(system: str, source: Sound, document: Document | bytes, **judged: Any) -> Attempt:
    """A sound database under another manifest."""
    made = objects(system, source, document=document)
    return Attempt(made, source.records, control=source.name, **judged)


def flip(system: str, random: Random) -> Attempt:
    """Bits of the manifest's own bytes; where that leaves another readable time, times may follow it."""
    source = small(random)
    data = bytearray(encoded(manifest(system, source)))
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return attempt(system, source, bytes(data), retimed=_time_in(bytes(data)) != source.written)


def _time_in(data: bytes) -> Any:
    try:
        return json.loads(data)["timestamp"]
    except (ValueError, KeyError, TypeError):
        return None


def cut(system: str, random: Random) -> Attempt:
    source = small(random)
    data = encoded(manifest(system, source))
    return attempt(system, source, data[: random.randrange(len(data))], **refused(["invalid-manifest"]))


def _places(document: Document) -> list[tuple[Any, Any]]:
    files = document["files"]
    return [(document, name) for name in document] + [(file, name) for file in files for name in file] + [(files, 0)]


def edit(system: str, random: Random) -> Attempt:
    """One value anywhere in the manifest replaced by something nobody expects, or left out."""
    source = small(random)
    document = manifest(system, source)
    holder, name = random.choice(_places(document))
    if random.random() < 0.2:
        del holder[name]
    else:
        holder[name] = random.choice(HOSTILE)
    return attempt(system, source, document, retimed=name == "timestamp")


def retime(system: str, random: Random) -> Attempt:
    source = small(random)
    document = manifest(system, source) | {"timestamp": random.choice(TIMES)}
    return attempt(system, source, document, retimed=True)


def add(system: str, random: Random) -> Attempt:
    """Keys that are not known change nothing."""
    source = small(random)
    document = manifest(system, source)
    for number in range(random.randrange(1, 50)):
        random.choice([document, document["metadata"], document["files"][0]])[f"extra {number}"] = random.choice(
            READABLE
        )
    return attempt(system, source, document, must="accept")


def text(system: str, random: Random) -> Attempt:
    """The same document in another encoding, or no document at all."""
    source = small(random)
    plain = encoded(manifest(system, source))
    good = {
        "bom": lambda: b"\xef\xbb\xbf" + plain,
        "compact": lambda: json.dumps(json.loads(plain), separators=(",", ":")).encode(),
        "spaces": lambda: b" \r\n\t" * 99 + plain + b"\n" * 999,
        "reordered": lambda: json.dumps(dict(reversed(json.loads(plain).items()))).encode(),
    }
    bad = {
        "utf-16": lambda: plain.decode().encode("utf-16"),
        "utf-32": lambda: plain.decode().encode("utf-32"),
        "not-utf-8": lambda: plain.replace(b"session-buddy", b"session\xff\xfebud"),
        "surrogate-bytes": lambda: plain.replace(b"session-buddy", b"\xed\xa0\x80"),
        "nul": lambda: plain + b"\0",
        "two-documents": lambda: plain + plain,
        "list": lambda: b"[" + plain + b"]",
        "number": lambda: b"1",
        "null": lambda: b"null",
        "empty": lambda: b"",
        "deep": lambda: b"[" * 100_000,
        "deep-object": lambda: b'{"upload_id":' * 20_000,
        "large": lambda: plain + b" " * (1 << 20),
        "huge-number": lambda: plain.replace(b'"size_bytes": 0', b'"size_bytes": ' + b"9" * 5_000),
        "nan": lambda: plain.replace(b'"size_bytes": 0', b'"size_bytes": NaN'),
        "html": lambda: b"<Error><Code>AccessDenied</Code></Error>",
        "trailing-comma": lambda: plain.rstrip(b"}") + b",}",
        "database": lambda: source.database[:5_000],
    }
    chosen = random.choice([*good, *bad])
    if chosen in good:
        return attempt(system, source, good[chosen](), must="accept")
    return attempt(system, source, bad[chosen](), **refused(["invalid-manifest"]))


def repeated_keys(system: str, random: Random) -> Attempt:
    """JSON whose keys stand twice: whichever is read, nothing foreign comes in."""
    source = small(random)
    plain = encoded(manifest(system, source)).decode()
    key, value = random.choice(
        [
            ("system_id", OTHER),
            ("upload_id", "x"),
            ("timestamp", "2026-01-01T00:00:00+00:00"),
            ("files", []),
            ("files", None),
        ]
    )
    more = f'"{key}": {json.dumps(value)}'
    data = (
        plain.replace("{", "{" + more + ",", 1)
        if random.random() < 0.5
        else plain[: plain.rindex("}")] + "," + more + "}"
    )
    return attempt(system, source, data.encode(), retimed=key == "timestamp")


def elsewhere(system: str, random: Random) -> Attempt:
    """Paths that try to leave their upload: nothing but its own objects is ever read."""
    source = small(random)
    own = f"systems/{system}/uploads/{folder_of(system)}"
    foreign = f"systems/{OTHER}/uploads/{folder_of(OTHER)}/reflection.duckdb"
    path = random.choice([
        foreign, f"/{foreign}", f"{own}/../../../../{foreign}", f"{own}/./reflection.duckdb", f"{own}//reflection.duckdb",
        f"{own}/../{folder_of(system)}/reflection.duckdb", f"{own}\\..\\reflection.duckdb", f"/{own}/reflection.duckdb",
        f"{own}/reflection.duckdb/..", f"{own}/", own, "", ".", "..", "/etc/passwd", "file:///etc/passwd", f"s3://b/{own}/x",
        f"{own}/..%2f..%2freflection.duckdb", f"{own}/reflection.duckdb\x00.png", f"{own}/\u202ebdkcud", f"{own}/reflection.duckdb\n",
        f"{own}/" + "a" * 300, f"{own}/" + "a/" * 600, f"{own}/\u2025/reflection.duckdb", f"{own}/.hidden", f"~/{own}/x",
        f"{own}-2/reflection.duckdb", f"{own.upper()}/reflection.duckdb", f"{own}/manifest.json", "lake.json", "../lake/lake.json",
    ])  # fmt: skip
    document = manifest(system, source)
    which = random.randrange(len(document["files"])) if random.random() < 0.2 else 0
    document["files"][which]["path"] = path
    reasons = ["path-outside-prefix", "invalid-manifest", "missing-object", "damaged", "not-a-database", "truncated"]
    return attempt(system, source, document, **(refused(reasons) if which == 0 else {}))


def impostor(system: str, random: Random) -> Attempt:
    """A manifest that claims to be somebody else's."""
    source = small(random)
    document = manifest(system, source)
    name = random.choice(["system_id", "upload_id"])
    document[name] = random.choice(
        [
            OTHER,
            folder_of(OTHER),
            system.upper(),
            f"{system} ",
            f"{system}/",
            f"../{system}",
            f"{system}\u200b",
            system[:-1],
        ]
    )
    return attempt(system, source, document, **refused(["other-system", "other-upload", "invalid-manifest"]))


def promise(system: str, random: Random) -> Attempt:
    """Sizes and checksums, right and wrong, of the packed and of the unpacked bytes."""
    source = small(random)
    document = manifest(system, source)
    first = document["files"][0]
    data = random.choice([source.packed, source.database])
    digest = hashlib.sha256(data).hexdigest()
    right: dict[str, Any] = {"size_bytes": len(data)}
    checksum = {
        "checksum": random.choice([digest, digest.upper(), f"sha256:{digest}", f"SHA-256={digest}", f" {digest}\n"])
    }
    wrong = {"size_bytes": len(data) + random.choice([-1, 1, 1_000])}
    other = {"checksum": hashlib.sha256(data + b"x").hexdigest()}
    changes, fine = random.choice(
        [
            (right, True),
            (checksum, True),
            (right | checksum, True),
            (wrong, False),
            (other, False),
            (right | other, False),
        ]
    )
    first.update(changes)
    judged = {"must": "accept"} if fine else refused(["size-mismatch", "checksum-mismatch"])
    return attempt(system, source, document, **judged)


@dataclass
class Parts:
    """An upload taken apart: its manifest and its other objects by name."""

    system: str
    source: Sound
    random: Random
    document: Document
    files: dict[str, bytes]

    @property
    def first(self) -> Document:
        return self.document["files"][0]

    def rename(self, name: str, *, said: bool) -> None:
        """Give the database another name, also in the manifest where that is `said`."""
        self.files[name] = self.files.pop(DATABASE)
        if said:
            self.first["path"] = f"systems/{self.system}/uploads/{folder_of(self.system)}/{name}"


def _missing(parts: Parts) -> Judged:
    del parts.files[DATABASE]
    return refused(["missing-object"])


def _emptied(parts: Parts) -> Judged:
    parts.files[DATABASE] = b""
    return refused(["truncated"])


def _renamed(parts: Parts) -> Judged:
    parts.rename(f"{DATABASE}.gz", said=True)
    parts.first["name"] = f"{DATABASE}.gz"
    return {"must": "accept"}


def _renamed_unsaid(parts: Parts) -> Judged:
    parts.rename(f"{DATABASE}.gz", said=False)
    return refused(["missing-object"])


def _deeper(parts: Parts) -> Judged:
    parts.rename(f"deep/er/{DATABASE}", said=True)
    return {"must": "accept"}


def _as_folder(parts: Parts) -> Judged:
    parts.rename(f"{DATABASE}/inner", said=False)
    return refused(["missing-object"])


def _strangers(parts: Parts) -> Judged:
    parts.files |= {f"stranger {number}.wal": parts.random.randbytes(99) for number in range(9)}
    return {"must": "accept"}


def _without_files(parts: Parts) -> Judged:
    parts.document["files"] = []
    return {}


def _many_files(parts: Parts) -> Judged:
    count = parts.random.choice([5, 62, 63, 200])
    parts.document["files"] += [{**parts.first, "name": f"{number}.duckdb"} for number in range(count)]
    return {}


def _twice(parts: Parts) -> Judged:
    parts.document["files"].append(dict(parts.first))
    return refused(["invalid-manifest"])


def _another_name(parts: Parts) -> Judged:
    parts.first["name"] = parts.random.choice(["Reflection.duckdb", "reflections.duckdb", "reflection.duckdb ", "x"])
    return {}


def _graph_as_memories(parts: Parts) -> Judged:
    parts.files[DATABASE] = pack(parts.source.graph or b"no graph" * 3_000)
    return refused(["unknown-tables", "not-a-database"])


def _graph_missing(parts: Parts) -> Judged:
    parts.files.pop(GRAPH, None)
    return {}


def _graph_damaged(parts: Parts) -> Judged:
    parts.files[GRAPH] = parts.random.randbytes(500)
    return {}


REARRANGED: tuple[Callable[[Parts], Judged], ...] = (
    _missing, _emptied, _renamed, _renamed_unsaid, _deeper, _as_folder, _strangers, _without_files, _many_files, _twice,
    _another_name, _graph_as_memories, _graph_missing, _graph_damaged,
)  # fmt: skip


def rearrange(system: str, random: Random) -> Attempt:
    """Objects missing, emptied, renamed or beside the point."""
    source = small(random)
    upload = folder_of(system)
    files = {key.removeprefix(f"{upload}/"): data for key, data in objects(system, source)[:-1]}
    parts = Parts(system, source, random, manifest(system, source), files)
    judged = random.choice(REARRANGED)(parts)
    made = [(f"{upload}/{name}", data) for name, data in parts.files.items()]
    made.append((f"{upload}/manifest.json", encoded(parts.document)))
    return Attempt(made, source.records, control=source.name, **judged)


def swapped(system: str, random: Random) -> Attempt:
    """The database of one upload under the manifest of another: caught where the manifest promises anything."""
    first, second = (sound(name) for name in random.sample([*SMALL, "unknown", "legacy"], 2))
    document = manifest(system, first)
    promised = random.choice(["size", "checksum", "nothing"])
    if promised == "size":
        document["files"][0]["size_bytes"] = len(first.database)
    if promised == "checksum":
        document["files"][0]["checksum"] = hashlib.sha256(first.database).hexdigest()
    made = objects(system, first, stored=second.packed, document=document)
    if promised == "nothing":
        return Attempt(made, second.records, must="accept")
    return Attempt(made, second.records, **refused(["size-mismatch", "checksum-mismatch"]))


def in_a_second(system: str, random: Random) -> Attempt:
    """Two uploads of one system made in the same second, in folders beside each other; one of them may be broken."""
    first, second = sound(random.choice(SMALL)), sound(random.choice(SMALL))
    broken = random.random() < 0.5
    upload, other = folder_of(system), f"{folder_of(system)}-2"
    document = manifest(system, second) | {"upload_id": other}
    for file in document["files"]:
        file["path"] = file["path"].replace(f"/{upload}/", f"/{other}/")
    data = second.packed[: len(second.packed) // 2] if broken else second.packed
    made = [
        *objects(system, first),
        (f"{other}/reflection.duckdb", data),
        (f"{other}/manifest.json", encoded(document)),
    ]
    truth = first.records if broken else {**first.records, **second.records}
    return Attempt(made, truth, must="" if broken else "accept")


KINDS = (
    Kind("manifest-flip", flip, 420),
    Kind("manifest-cut", cut, 100),
    Kind("manifest-edit", edit, 420),
    Kind("manifest-time", retime, 140),
    Kind("manifest-extra-keys", add, 40),
    Kind("manifest-text", text, 120),
    Kind("manifest-repeated-keys", repeated_keys, 50),
    Kind("path-elsewhere", elsewhere, 150),
    Kind("impostor", impostor, 60),
    Kind("promise", promise, 100),
    Kind("objects", rearrange, 150),
    Kind("swapped", swapped, 50),
    Kind("one-second", in_a_second, 60),
)
