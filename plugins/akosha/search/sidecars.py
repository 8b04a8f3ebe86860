"""Sidecars: what an exact scan needs of one hot or warm file, memory-mapped.

A sidecar is a folder named by its file's SHA-256, in the cache and nowhere else: derived, never committed, deletable at
any time. One that is missing, half made or damaged is made again from the file.

    codes.npy    int8 (n, 384)     codes[i] * scales[i] approximates the vector of row i at length 1
    scales.npy   float32 (n,)
    vectors.npy  float32 (n, 384)  hot only, length 1
    rows.arrow   n rows of what filters and hits need
    sidecar.json sizes and CRC-32 of the files above, written last
"""

from __future__ import annotations

import io
import json
import shutil
import uuid
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import ConfigurationError, DiskFullError
from akosha.lake.columns import codes_of, vectors_of
from akosha.lake.commits import FileEntry
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.transforms.quantization import dequantize, quantize
from akosha.transforms.recall import unit

FORMAT: Final = 1
MANIFEST: Final = "sidecar.json"
_REPEATING: Final = ("system_id", "source_table", "project", "embedding_model", "provenance")
_PLAIN: Final = ("record_id", "created_at", "content_sha256", "summary")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """An open sidecar. Its n rows are the rows of the file that have a vector, in the file's order.

    Attributes:
        codes: int8 ``(n, 384)``.
        scales: float32 ``(n,)``.
        vectors: float32 ``(n, 384)`` of length 1 where the file keeps FLOAT, else None.
        rows: system_id, source_table, project, embedding_model, provenance (dictionary-encoded), record_id,
            created_at (int64, microseconds UTC), content_sha256 (32 bytes), summary, row (uint32, number in the file).
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    vectors: NDArray[np.float32] | None
    rows: pa.Table

    @property
    def size(self) -> int:
        """How many rows, n."""
        return len(self.scales)

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of fixed width as numpy, without a copy."""
        column: NDArray[Any] = _only_chunk(self.rows, name).to_numpy(zero_copy_only=True)
        return column

    def digests(self) -> NDArray[np.uint64]:
        """Content digests as uint64 ``(n, 4)``, native order: for comparing, not for reading."""
        column = _only_chunk(self.rows, "content_sha256")
        return np.frombuffer(column.buffers()[1], dtype=np.uint64, count=4 * len(column)).reshape(-1, 4)

    def equal_to_any(self, name: str, values: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which rows hold one of `values` in a dictionary-encoded column: the dictionary is searched, not the rows."""
        column = _only_chunk(self.rows, name)
        wanted = np.array([*(word in values for word in column.dictionary.to_pylist()), False])
        codes = column.indices.fill_null(len(wanted) - 1).to_numpy(zero_copy_only=False)
        found: NDArray[np.bool_] = wanted[codes]
        return found


class Sidecars:
    """The sidecars of one lake. Those opened stay mapped and are checked once in the life of this object."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._folder = lake.settings.cache / "sidecars" / str(FORMAT)
        self._open: dict[str, Sidecar] = {}

    def of(self, entry: FileEntry) -> Sidecar:
        """The sidecar of a hot or warm file, made if need be.

        Raises:
            ObjectMissingError: the file itself is needed and is not there.
            IntegrityError: it is needed and is damaged.
            DiskFullError, ConfigurationError: the cache folder is full or cannot be written to.
        """
        if entry.sha256 not in self._open:
            folder = self._folder / entry.sha256[:2] / entry.sha256
            self._open[entry.sha256] = _load(folder) or self._build(entry, folder)
        return self._open[entry.sha256]

    def _build(self, entry: FileEntry, folder: Path) -> Sidecar:
        """Make it beside its place and rename it there. Removed rows are in it: lists change, the file does not."""
        sidecar = _derive(self._lake, replace(entry, removal=None))
        unfinished = folder.parent / f".{uuid.uuid4().hex}"
        try:
            unfinished.mkdir(parents=True)
            _save(sidecar, unfinished)
            made = _load(unfinished)
            _put_in_place(unfinished, folder)
        except OSError as error:
            message = f"cannot write a sidecar ({error.strerror}): free space, or change AKOSHA_CACHE_DIR"
            raise DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(folder)) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if made is None:
            message = "a sidecar just written does not read back: check the disk behind AKOSHA_CACHE_DIR"
            raise ConfigurationError(message, setting="AKOSHA_CACHE_DIR", path=str(folder))
        return made  # its mapping outlives the rename, and another process that replaces it by its equal


def _derive(lake: Lake, entry: FileEntry) -> Sidecar:
    vector_columns = ["embedding"] if entry.tier == "hot" else ["codes", "scale"]
    table = lake.rows(entry, [*_REPEATING, *_PLAIN, *vector_columns])
    if entry.tier == "hot":
        vectors, present = vectors_of(table.column("embedding"))
    else:
        codes, scales, present = codes_of(table.column("codes"), table.column("scale"))
        vectors = dequantize(codes, scales)
    norms = np.linalg.norm(vectors, axis=1)
    # A vector without a direction is like no vector: it is similar to nothing.
    usable = np.isfinite(norms) & (norms > 0)
    rows = _row_columns(table.filter(pa.array(present)).filter(pa.array(usable)))
    if entry.tier == "warm":
        return Sidecar(codes[usable], scales[usable] / norms[usable], None, rows)
    floats = unit(vectors[usable])
    return Sidecar(*quantize(floats), floats, rows)


def _row_columns(table: pa.Table) -> pa.Table:
    columns = {name: table.column(name).dictionary_encode().combine_chunks() for name in _REPEATING}
    columns |= {name: table.column(name).combine_chunks() for name in (*_PLAIN, ROW)}
    columns["created_at"] = columns["created_at"].cast(pa.int64())
    columns["content_sha256"] = columns["content_sha256"].cast(pa.binary(32))
    return pa.table(columns)


def _save(sidecar: Sidecar, folder: Path) -> None:
    np.save(folder / "codes.npy", sidecar.codes)
    np.save(folder / "scales.npy", sidecar.scales)
    if sidecar.vectors is not None:
        np.save(folder / "vectors.npy", sidecar.vectors)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, sidecar.rows.schema) as writer:
        writer.write_table(sidecar.rows.combine_chunks())
    parts = {path.name: _facts(_mapped(path)) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "parts": parts}, indent=1))


def _put_in_place(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        # Something is there: whole, because another process was faster and equal files give equal sidecars; or damaged.
        if _load(folder) is None:
            with suppress(FileNotFoundError):
                folder.rename(unfinished.with_name(f"{unfinished.name}-damaged"))
            shutil.rmtree(unfinished.with_name(f"{unfinished.name}-damaged"), ignore_errors=True)
            with suppress(FileExistsError):
                unfinished.rename(folder)


def _load(folder: Path) -> Sidecar | None:
    """An intact sidecar, or None. Whatever is wrong with one, making it again is the answer."""
    try:
        parts = json.loads((folder / MANIFEST).read_text())["parts"]
        mapped = {name: _mapped(folder / name) for name in parts}
        if any(_facts(mapped[name]) != parts[name] for name in parts):
            return None
        return _opened(mapped)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None


def _opened(mapped: dict[str, pa.Buffer]) -> Sidecar:
    rows = pa.ipc.open_file(pa.BufferReader(mapped["rows.arrow"])).read_all()
    vectors = mapped.get("vectors.npy")
    return Sidecar(
        _array(mapped["codes.npy"]),
        _array(mapped["scales.npy"]),
        None if vectors is None else _array(vectors),
        rows,
    )


def _mapped(path: Path) -> pa.Buffer:
    # Arrow's mapping outlives the closed file. Python's mmap keeps a descriptor: 256 shards would need thousands.
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def _facts(data: pa.Buffer) -> list[int]:
    return [data.size, zlib.crc32(data)]


def _array(data: pa.Buffer) -> NDArray[Any]:
    header = io.BytesIO(data.slice(0, min(data.size, 256)).to_pybytes())
    read_header: Callable[[io.BytesIO], tuple[Any, ...]] = np.lib.format.read_array_header_1_0
    np.lib.format.read_magic(header)
    shape, _, kind = read_header(header)
    return np.frombuffer(data, dtype=kind, offset=header.tell()).reshape(shape)


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
