"""Checking the files of a lake as bytes: there, of the right size, and with the digests that the commits promise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from akosha.errors import ObjectMissingError
from akosha.lake.commits import Commit, FileEntry, GraphFile, HoldFile, KeyFile
from akosha.lake.files import Digests, digests_of
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.quality.findings import FsckReport

Place = tuple[str, str]
COLD_IN_LAKE: Final = "cold/"
IGNORED: Final = ("reports/", "probe/")
REMOVAL_ROW_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that retained versions name. `root` is lake or cold; `versions` are those that name it."""

    root: str
    path: str
    kind: str
    bytes: int
    digests: Digests
    shard: int
    versions: set[int] = field(default_factory=set, compare=False)

    @property
    def place(self) -> Place:
        """Root and path."""
        return self.root, self.path

    def store(self, lake: Lake) -> ObjectStore:
        """Where it lies."""
        return lake.cold if self.root == "cold" else lake.store


def named_files(commits: Iterable[Commit], report: FsckReport) -> dict[Place, NamedFile]:
    """Every file that some versions name, once; a finding when two versions disagree about one."""
    found: dict[Place, NamedFile] = {}
    for commit in commits:
        for file in files_of(commit):
            known = found.setdefault(file.place, file)
            known.versions.add(commit.version)
            if known != file:
                message = f"versions {max(known.versions)} and {commit.version} promise other bytes under one name"
                report.damage("file_disputed", message, key=file.path, shard=commit.shard, kind=file.kind)
    return found


def files_of(commit: Commit) -> Iterator[NamedFile]:
    """Every file that one version names: tiers, archive, removal lists, key files, graphs."""
    for entry in commit.files.values():
        yield _named(entry, entry.root, entry.tier, commit.shard)
        if entry.removal is not None:
            removal = entry.removal
            size = removal.rows * REMOVAL_ROW_BYTES
            yield NamedFile("lake", removal.path, "removals", size, Digests(removal.sha256, ""), commit.shard)
    for keys in commit.keys.values():
        yield _named(keys, "lake", "keys", commit.shard)
    for graph in commit.graphs.values():
        yield _named(graph, "lake", "graph", commit.shard)
    if commit.holds is not None:
        yield _named(commit.holds, "lake", "holds", commit.shard)


def _named(entry: FileEntry | KeyFile | GraphFile | HoldFile, root: str, kind: str, shard: int) -> NamedFile:
    return NamedFile(root, entry.path, kind, entry.bytes, Digests(entry.sha256, entry.xxh128), shard)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the stores of a lake hold: keys with sizes in bytes, reports and probes left out."""

    lake_objects: Mapping[str, int]
    cold_objects: Mapping[str, int]

    @classmethod
    def of(cls, lake: Lake) -> Self:
        """List both roots."""
        objects = {item.key: item.size_bytes for item in lake.store.list("") if not item.key.startswith(IGNORED)}
        if lake.identity.cold_url:
            cold = {item.key: item.size_bytes for item in lake.cold.list("shards/")}
        else:
            cold = {
                key.removeprefix(COLD_IN_LAKE): size for key, size in objects.items() if key.startswith(COLD_IN_LAKE)
            }
            objects = {key: size for key, size in objects.items() if not key.startswith(COLD_IN_LAKE)}
        return cls(objects, cold)

    def check_present(self, lake: Lake, files: Mapping[Place, NamedFile], report: FsckReport) -> set[Place]:
        """Places of the files that are there with the right size; findings for the others."""
        sound = set()
        for place, file in sorted(files.items()):
            report.checked["files"] += 1
            size = self._objects(file.root).get(file.path)
            if size is None:
                size = _asked_again(lake, file)
            if size == file.bytes:
                sound.add(place)
            elif size is None:
                if _still_named(lake, file):
                    message = "a file named by a retained version is missing; restore it from a copy"
                    report.damage("file_missing", message, key=file.path, shard=file.shard, kind=file.kind)
            else:
                message = f"expected {file.bytes} bytes, found {size}; restore the file from a copy"
                report.damage("file_size", message, key=file.path, shard=file.shard, kind=file.kind)
        return sound

    def check_bytes(self, lake: Lake, file: NamedFile, report: FsckReport) -> bool:
        """Read a file and compare its digests. False, with a finding, when it is damaged."""
        try:
            found = _digests(lake, file)
        except ObjectMissingError:
            if _still_named(lake, file):
                message = "a file named by a retained version is missing; restore it from a copy"
                report.damage("file_missing", message, key=file.path, shard=file.shard, kind=file.kind)
            return False
        report.checked["bytes_read"] += file.bytes
        promised = file.digests
        if found.sha256 == promised.sha256:
            if promised.xxh128 not in {"", found.xxh128}:
                message = "the file is sound by its SHA-256, but its commit holds another XXH3; jobs read it all the same, only slower"
                report.warn("file_fast_digest", message, key=file.path, shard=file.shard)
            return True
        message = (
            f"the file is damaged: expected SHA-256 {promised.sha256}, found {found.sha256}; restore it from a copy"
        )
        report.damage("file_digest", message, key=file.path, shard=file.shard, kind=file.kind)
        return False

    def report_strangers(
        self, named: Mapping[Place, NamedFile], known: tuple[str, ...], condemned: Set[str], report: FsckReport
    ) -> None:
        """Warn of files that no retained version names, and of objects that have no place in a lake.

        Files that a head condemns are no orphans: the sweep knows of them and deletes them after its grace.
        """
        orphans = {key: size for key, size in self.cold_objects.items() if ("cold", key) not in named}
        for key, size in self.lake_objects.items():
            if key.startswith("shards/") and "/commits/" not in key and ("lake", key) not in named:
                orphans[key] = size
            elif not key.startswith(known):
                report.warn("unknown_object", "this object has no place in a lake; move it elsewhere", key=key)
        waiting = {key: size for key, size in orphans.items() if key in condemned}
        orphans = {key: size for key, size in orphans.items() if key not in condemned}
        report.checked["condemned"] += len(waiting)
        report.checked["condemned_bytes"] += sum(waiting.values())
        report.checked["orphans"] += len(orphans)
        report.checked["orphan_bytes"] += sum(orphans.values())
        if orphans:
            message = (
                f"{len(orphans)} files of {sum(orphans.values())} bytes are named by no retained version; a writer may "
                "still be at work on them, else the sweep removes them"
            )
            report.warn("orphans", message, key=min(orphans))

    def _objects(self, root: str) -> Mapping[str, int]:
        return self.cold_objects if root == "cold" else self.lake_objects


def _asked_again(lake: Lake, file: NamedFile) -> int | None:
    """The size of a file that a listing lacked: it may have been committed while the listing was made."""
    found = file.store(lake).stat(file.path)
    return found.size_bytes if found else None


def _still_named(lake: Lake, file: NamedFile) -> bool:
    """Whether a version that names the file is still retained: if not, the sweep has overtaken this check."""
    return bool(file.versions & set(lake.shard(file.shard).versions()))


def _digests(lake: Lake, file: NamedFile) -> Digests:
    store = file.store(lake)
    local = store.local_path(file.path)
    if local is not None:
        return _digests_of_local(local, file.path)
    with lake.cache.scratch() as folder:
        fetched = folder / "fetched"
        store.download(file.path, fetched)
        return digests_of(fetched)


def _digests_of_local(path: Path, key: str) -> Digests:
    try:
        return digests_of(path)
    except FileNotFoundError:
        message = "the object is not in the store"
        raise ObjectMissingError(message, key=key) from None
