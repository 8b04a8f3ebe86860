"""What one case of the corpus puts into the bucket, and what may come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from tests.support.mutation_sources import SECOND, Records, Sound, pack

Document = dict[str, Any]


@dataclass
class Attempt:
    """One system's uploads, damaged or hostile.

    Attributes:
        objects: bytes by key below ``systems/SYSTEM/uploads/``, in the order in which they are written, manifests last.
        truth: every record that the undamaged uploads hold; what is accepted must be equal to it.
        control: the sound upload whose times hold for this one too, empty = none to compare with.
        retimed: the manifest's time was edited.
        authored: the file is sound in itself but written by another hand: there is no original to compare with.
        must: whether it has to be refused or to be taken; empty = either.
        reasons: a refusal has one of these; empty = any declared one.
    """

    objects: list[tuple[str, bytes]]
    truth: Records = field(default_factory=dict)
    control: str = ""
    retimed: bool = False
    authored: bool = False
    must: Literal["refuse", "accept", ""] = ""
    reasons: frozenset[str] = frozenset()


Make = Callable[[str, Random], Attempt]


@dataclass(frozen=True)
class Kind:
    """A kind of damage: how it is made, and how many of 5,000 cases are of it."""

    name: str
    make: Make
    share: int


def folder_of(system: str, second: str = SECOND) -> str:
    """The upload id of a system's upload of one second."""
    return f"{second}_{system}"


def manifest(
    system: str, source: Sound, *, compression: str = "gzip", second: str = SECOND, written: str = ""
) -> Document:
    """The manifest of a sound upload, as the client writes it."""
    upload = folder_of(system, second)
    names = ["reflection.duckdb", *(["knowledge_graph.duckdb"] if source.graph else [])]
    return {
        "upload_id": upload,
        "system_id": system,
        "timestamp": written or source.written,
        "files": [
            {"name": name, "path": f"systems/{system}/uploads/{upload}/{name}", "size_bytes": 0, "compression": compression,
             "checksum": ""}
            for name in names
        ],
        "metadata": {"uploader": "session-buddy", "version": "1.0.0"},
    }  # fmt: skip


def encoded(document: Document) -> bytes:
    """As the client encodes it."""
    return json.dumps(document, indent=2).encode()


def objects(
    system: str,
    source: Sound,
    *,
    stored: bytes | None = None,
    document: Document | bytes | None = None,
    compression: str = "gzip",
    second: str = SECOND,
) -> list[tuple[str, bytes]]:
    """The objects of an upload of `source`, with other database bytes or another manifest where given."""
    upload = folder_of(system, second)
    document = manifest(system, source, compression=compression, second=second) if document is None else document
    database = stored if stored is not None else (source.packed if compression == "gzip" else source.database)
    made = [(f"{upload}/reflection.duckdb", database)]
    if source.graph is not None:
        made.append((f"{upload}/knowledge_graph.duckdb", pack(source.graph) if compression == "gzip" else source.graph))
    made.append((f"{upload}/manifest.json", document if isinstance(document, bytes) else encoded(document)))
    return made


def damaged(system: str, source: Sound, stored: bytes, *, compression: str = "gzip", **judged: Any) -> Attempt:
    """An upload of `source` whose database object is `stored`."""
    made = objects(system, source, stored=stored, compression=compression)
    return Attempt(made, source.records, control=source.name, **judged)


def refused(reasons: Iterable[str]) -> dict[str, Any]:
    """What `Attempt` says of one that has to be refused."""
    return {"must": "refuse", "reasons": frozenset(reasons)}
