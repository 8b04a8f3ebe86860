"""Uploads that do not become records: broken ones, empty ones, and one that was never finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from akosha.demo.cast import Machine
from akosha.demo.container import (
    KNOWLEDGE_GRAPH,
    MANIFEST,
    REFLECTION,
    Compression,
    UploadName,
    gzip_member,
    manifest,
    manifest_bytes,
    packed,
)
from akosha.demo.database import build_database
from akosha.demo.expected import ExpectedUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TORN: Final = Machine("torn-laptop.local", -300, (("v2", 40),), (0.7,), storage="2.0")
BYSTANDERS: Final = (TORN,)
"""Machines whose memories are written but must never be found."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload as stored: keys and bytes in the order in which the client writes them, the manifest last."""

    name: UploadName
    objects: tuple[tuple[str, bytes], ...]
    expected: ExpectedUpload


@dataclass(frozen=True, slots=True)
class Donors:
    """Unpacked databases that broken uploads are made of: the newest of each system, and one with a damaged block.

    Attributes:
        reflections: by system id.
        graphs: by system id.
        torn: the database of `TORN`.
    """

    reflections: Mapping[str, bytes]
    graphs: Mapping[str, bytes]
    torn: bytes


def manifest_moment(name: UploadName) -> datetime:
    """When the manifest of an upload was built: a second or two after its name was chosen."""
    return name.moment + timedelta(microseconds=1_000_000 + name.moment.microsecond % 700_000)


def upload(name: UploadName, files: Mapping[str, bytes], compression: Compression, expected: ExpectedUpload) -> Upload:
    """A regular upload of unpacked database files."""
    objects = [(name.key(file), packed(data, compression, name.moment)) for file, data in files.items()]
    document = manifest(name, manifest_moment(name), list(files), compression)
    return Upload(name, (*objects, (name.key(MANIFEST), manifest_bytes(document))), expected)


def side_uploads(anchor: datetime, donors: Donors) -> list[Upload]:
    """All of them, written in the last hour before `anchor`: some by systems of their own, some after good uploads."""
    made = []
    for number, (system_id, make) in enumerate(_SIDE_UPLOADS):
        ago = timedelta(minutes=50 - 3 * number, microseconds=713_441)
        made.append(make(UploadName(system_id, anchor - ago), donors))
    return made


def _quarantined(name: UploadName, *reasons: str) -> ExpectedUpload:
    return ExpectedUpload(name.system_id, name.key(MANIFEST), "quarantined", reasons)


def _empty(name: UploadName) -> ExpectedUpload:
    return ExpectedUpload(name.system_id, name.key(MANIFEST), "empty")


def _with_manifest(
    name: UploadName,
    data: bytes | None,
    compression: Compression,
    change: Callable[[dict[str, Any]], None],
    reason: str,
) -> Upload:
    """An upload of one object as given (None = left out), whose manifest document was changed."""
    document = manifest(name, manifest_moment(name), [REFLECTION], compression)
    change(document)
    objects = [] if data is None else [(name.key(REFLECTION), data)]
    return Upload(name, (*objects, (name.key(MANIFEST), manifest_bytes(document))), _quarantined(name, reason))


def _unchanged(document: dict[str, Any]) -> None:
    pass


def _truncated(name: UploadName, donors: Donors) -> Upload:
    whole = gzip_member(donors.reflections[name.system_id], name.moment)
    return _with_manifest(name, whole[: len(whole) * 3 // 5], "gzip", _unchanged, "truncated")


def _missing_object(name: UploadName, _donors: Donors) -> Upload:
    return _with_manifest(name, None, "gzip", _unchanged, "missing-object")


def _invalid_manifest(name: UploadName, donors: Donors) -> Upload:
    regular = upload(
        name, {REFLECTION: donors.reflections[name.system_id]}, "gzip", _quarantined(name, "invalid-manifest")
    )
    *objects, (key, text) = regular.objects
    return Upload(name, (*objects, (key, text[:-47])), regular.expected)


def _unknown_tables(name: UploadName, _donors: Donors) -> Upload:
    database = build_database(("demo_foreign",), {}, "2.0")
    return upload(name, {REFLECTION: database}, "gzip", _quarantined(name, "unknown-tables"))


def _damaged(name: UploadName, donors: Donors) -> Upload:
    return upload(name, {REFLECTION: donors.torn}, "gzip", _quarantined(name, "damaged"))


def _raw_called_gzip(name: UploadName, donors: Donors) -> Upload:
    return _with_manifest(name, donors.reflections[name.system_id], "gzip", _unchanged, "wrong-label")


def _gzip_called_none(name: UploadName, donors: Donors) -> Upload:
    data = gzip_member(donors.reflections[name.system_id], name.moment)
    return _with_manifest(name, data, "none", _unchanged, "wrong-label")


def _path_outside(name: UploadName, donors: Donors) -> Upload:
    data = gzip_member(donors.reflections["les-mbp.local"], name.moment)
    other = UploadName("les-mbp.local", name.moment - timedelta(hours=2))

    def elsewhere(document: dict[str, Any]) -> None:
        document["files"][0]["path"] = other.key(REFLECTION)

    return _with_manifest(name, data, "gzip", elsewhere, "path-outside-prefix")


def _of_another_system(name: UploadName, donors: Donors) -> Upload:
    data = gzip_member(donors.reflections["les-mbp.local"], name.moment)

    def renamed(document: dict[str, Any]) -> None:
        document["system_id"] = "les-mbp.local"

    return _with_manifest(name, data, "gzip", renamed, "other-system")


def _stale(name: UploadName, _donors: Donors) -> Upload:
    """All rows were still in the write-ahead log, which is not uploaded: a valid file without a single table."""
    return upload(name, {REFLECTION: build_database((), {}, "2.0")}, "gzip", _empty(name))


def _no_rows(name: UploadName, _donors: Donors) -> Upload:
    return upload(name, {REFLECTION: build_database(("demo_layer_v2",), {}, "2.0")}, "gzip", _empty(name))


def _graph_alone(name: UploadName, donors: Donors) -> Upload:
    return upload(name, {KNOWLEDGE_GRAPH: donors.graphs[name.system_id]}, "gzip", _empty(name))


def _unfinished(name: UploadName, donors: Donors) -> Upload:
    data = gzip_member(donors.torn, name.moment)
    return Upload(
        name, ((name.key(REFLECTION), data),), ExpectedUpload(name.system_id, name.key(MANIFEST), "unfinished")
    )


_SIDE_UPLOADS: Final[tuple[tuple[str, Callable[[UploadName, Donors], Upload]], ...]] = (
    ("les-mbp.local", _truncated),
    ("half-synced laptop", _missing_object),
    ("dev box 3", _invalid_manifest),
    ("someone-elses-db", _unknown_tables),
    (TORN.system_id, _damaged),
    ("büro-rechner-ö", _raw_called_gzip),
    ("4f1d9c0be7a2", _gzip_called_none),
    ("path-walker", _path_outside),
    ("mirror.example", _of_another_system),
    ("東京-ws.example", _stale),
    ("fresh-laptop", _no_rows),
    ("team/ci-runner", _graph_alone),
    ("interrupted-laptop", _unfinished),
)
