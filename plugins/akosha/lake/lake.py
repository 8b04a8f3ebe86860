"""A lake: its identity, its stores, its shards and its files."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import ConfigurationError, FormatVersionError, ObjectMissingError
from akosha.lake import files, layout, removals
from akosha.lake.cache import FileCache
from akosha.lake.commits import Commit, FileEntry, GraphFile, KeyFile
from akosha.lake.documents import seal, unseal
from akosha.lake.graph_schema import GRAPH
from akosha.lake.objects import ObjectStore
from akosha.lake.policy import Policy, read_policy
from akosha.lake.policy_documents import write_first_policy
from akosha.lake.schemas import DIMENSION, KEYS
from akosha.lake.shard_log import ShardLog
from akosha.lake.stores import open_store, probe
from akosha.settings import Settings


@dataclass(frozen=True, slots=True)
class Identity:
    """What lake.json says; written once."""

    lake_id: str
    dimension: int
    shards: int
    cold_url: str
    created_at: str


class Lake:
    """One lake, open. Make one with `create` or `open`."""

    def __init__(self, settings: Settings, store: ObjectStore, cold: ObjectStore, identity: Identity) -> None:
        self.settings = settings
        self.store = store
        self.cold = cold
        self.identity = identity
        self.cache = FileCache(settings.cache)

    @classmethod
    def create(cls, settings: Settings, *, now: datetime) -> Self:
        """Make an empty lake, or open the one that is there.

        Raises:
            ConfigurationError: the store is missing, refuses us, or does not create conditionally; nothing is written.
        """
        store = open_store(settings.lake_url, settings, setting="AKOSHA_LAKE_URL")
        if store.stat(layout.LAKE) is None:
            if store.list_folders("shards/"):
                message = (
                    f"{settings.lake_url} holds shards but no lake.json: put a copy of it back, or choose another URL"
                )
                raise ConfigurationError(message, setting="AKOSHA_LAKE_URL")
            probe(store, setting="AKOSHA_LAKE_URL")
            if settings.cold_url:
                probe(open_store(settings.cold_url, settings, setting="AKOSHA_COLD_URL"), setting="AKOSHA_COLD_URL")
            write_first_policy(store, now=now)
            document = {
                "format": "akosha-lake/1",
                "lake_id": uuid.uuid4().hex,
                "dimension": DIMENSION,
                "shards": layout.SHARDS,
                "cold_url": settings.cold_url,
                "created_at": now.isoformat(),
            }
            store.put_if_absent(layout.LAKE, seal(document))
        return cls.open(settings)

    @classmethod
    def open(cls, settings: Settings, *, to_write: bool = False) -> Self:
        """Open an existing lake.

        Args:
            settings: where it is.
            to_write: also probe the stores, as every job that commits does once when it plans.

        Raises:
            ConfigurationError: there is no lake, its cold root or dimension is another, or the store is unfit.
            FormatVersionError: a newer Akosha wrote it.
        """
        store = open_store(settings.lake_url, settings, setting="AKOSHA_LAKE_URL")
        try:
            document = unseal(store.get(layout.LAKE), kind="lake", key=layout.LAKE)
        except ObjectMissingError:
            message = f"there is no lake at {settings.lake_url}: run `akosha init`, or change AKOSHA_LAKE_URL"
            raise ConfigurationError(message, setting="AKOSHA_LAKE_URL") from None
        except FormatVersionError as error:
            message = (
                f"the lake at {settings.lake_url} was written by a newer Akosha: upgrade, or change AKOSHA_LAKE_URL"
            )
            raise FormatVersionError(message, setting="AKOSHA_LAKE_URL", cause=error.message) from error
        identity = Identity(**{name: document[name] for name in Identity.__slots__})
        _check_identity(identity, settings)
        cold = (
            open_store(identity.cold_url, settings, setting="AKOSHA_COLD_URL")
            if identity.cold_url
            else open_store(f"{settings.lake_url}/cold", settings, setting="AKOSHA_LAKE_URL")
        )
        if to_write:
            probe(store, setting="AKOSHA_LAKE_URL")
        return cls(settings, store, cold, identity)

    @classmethod
    def open_unidentified(cls, settings: Settings) -> Self:
        """A lake whose lake.json cannot be read, for checking the rest of it: the settings say where its cold root is."""
        store = open_store(settings.lake_url, settings, setting="AKOSHA_LAKE_URL")
        cold_url = settings.cold_url or f"{settings.lake_url}/cold"
        cold = open_store(cold_url, settings, setting="AKOSHA_COLD_URL" if settings.cold_url else "AKOSHA_LAKE_URL")
        return cls(settings, store, cold, Identity("", DIMENSION, layout.SHARDS, settings.cold_url, ""))

    def shard(self, number: int) -> ShardLog:
        """The log of one shard."""
        return ShardLog(self.store, number)

    def shards(self) -> list[int]:
        """Shards that have something, ascending: one listing."""
        return [int(name) for name in self.store.list_folders("shards/") if name.isdigit()]

    def heads(self) -> list[Commit]:
        """A snapshot: the head of every shard that has one, each consistent in itself."""
        return [head for head in (self.shard(number).head() for number in self.shards()) if head.version]

    def policy(self, number: int | None = None) -> Policy:
        """A policy, by default the newest, with the ages of the settings where it names none."""
        return read_policy(self.store, self.settings, number)

    def store_of(self, entry: FileEntry) -> ObjectStore:
        """The store that holds a file."""
        return self.cold if entry.root == "cold" else self.store

    def rows(self, entry: FileEntry, columns: Sequence[str] = (), *, before: datetime | None = None) -> pa.Table:
        """Live rows of a file, its removal list subtracted, with their numbers in the last column ``row``.

        Raises:
            ObjectMissingError: the file is not there: read the head again once; from the current head it is damage.
            IntegrityError: the file or its removal list is damaged.
        """
        path = self.cache.path_of(self.store_of(entry), entry)
        table = files.read(path, kind=entry.tier, columns=columns, before=before)
        return files.without_rows(table, self.removed(entry))

    def removed(self, entry: FileEntry) -> NDArray[np.uint32] | None:
        """Row numbers that left a file, ascending; None when none did."""
        if entry.removal is None:
            return None
        return removals.decode(self.store.get(entry.removal.path), entry.removal)

    def keys(self, entry: KeyFile | None) -> pa.Table:
        """Live keys of a system (schema ``KEYS``), sorted by source_table, record_id; empty without a key file."""
        if entry is None:
            return KEYS.empty_table()
        path = self.cache.path_of(self.store, entry)
        return files.read(path, kind="keys").drop_columns([files.ROW])

    def graph(self, entry: GraphFile | None) -> pa.Table:
        """The knowledge graph of a system (schema ``GRAPH``), sorted by kind, id, content_sha256; empty without a file."""
        if entry is None:
            return GRAPH.empty_table()
        path = self.cache.path_of(self.store, entry)
        return files.read(path, kind="graph").drop_columns([files.ROW])


def _check_identity(identity: Identity, settings: Settings) -> None:
    if identity.dimension != DIMENSION:
        message = (
            f"this lake holds vectors of {identity.dimension} dimensions, this Akosha works with {DIMENSION}: "
            "point AKOSHA_LAKE_URL at another lake or run the Akosha that made it"
        )
        raise ConfigurationError(message, setting="AKOSHA_LAKE_URL")
    if identity.shards != layout.SHARDS:
        message = f"this lake has {identity.shards} shards, expected {layout.SHARDS}; change AKOSHA_LAKE_URL"
        raise ConfigurationError(message, setting="AKOSHA_LAKE_URL")
    if settings.cold_url and settings.cold_url != identity.cold_url:
        message = (
            f"AKOSHA_COLD_URL is {settings.cold_url}, but this lake keeps its cold files at "
            f"{identity.cold_url or 'its own folder cold/'}: unset AKOSHA_COLD_URL or set it to that"
        )
        raise ConfigurationError(message, setting="AKOSHA_COLD_URL")
