"""Reading a hostile ``memories.json`` of the older Akosha: its conversations as one Arrow IPC file.

Runs only inside the locked-down process of `akosha.uploads.sandbox_child`. The rows have the shape of a source table
(`akosha.uploads.reader.KEY_ROWS`, `TEXT_ROWS`) named ``conversations``, so that everything behind the sandbox is the same.

``{"conversations": [{id, content, embedding?, timestamp, source?, metadata?}]}``. Conversations are parsed one by one:
the text of the document is in memory, its objects are not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pyarrow as pa

from akosha.uploads.reader import DIGESTED, DIMENSION, KEY_ROWS, TEXT_ROWS, Budget, LimitError, Limits, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE: Final = "conversations"
MAX_BYTES: Final = 256 << 20  # of the document; in memory a text takes up to four bytes a character
BATCH_ROWS: Final = 256  # of objects of a few thousand numbers each
MAX_IGNORED: Final = 1_000
MAX_ID_BYTES: Final = 1_024
MAX_CONTENT_BYTES: Final = 16 << 20
MAX_DETAIL_BYTES: Final = 4 << 20  # of metadata, as of a database's
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC).replace(tzinfo=None)

PAYLOAD_ROWS: Final = pa.schema(
    [
        *[of for of in KEY_ROWS if of.name not in DIGESTED],
        *list(TEXT_ROWS)[1:],
        pa.field("details", pa.string()),
    ]
)

_WHITE = re.compile(r"[ \t\n\r]*")
# As in include/sql/source_rows.sql: white space of ASCII and what Unicode calls a separator.
_VISIBLE = re.compile("[^\t\n\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class PayloadError(Exception):
    """The document is not what it must be; the message says where."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One member of the list. `doubled`: some object in it names a key twice; nobody can say which one was meant."""

    value: object
    doubled: bool = False


def extract_memories(con: object, payload: Path, out_dir: Path, limits: Limits) -> dict[str, Any]:
    """Write the conversations of `payload` to ``000.keys.arrow`` and ``000.rows.arrow``, in the order of the document.

    Refused rows are among them, each with its reason: those of a database, and ``not-an-object``, ``doubled-key``,
    ``lone-surrogate`` (such a text cannot be stored as it is, and another one would not be what was said).

    Args:
        con: of no use here.
        payload: the document.
        out_dir: where to write.
        limits: what it may cost.

    Returns:
        as `akosha.uploads.reader.extract_keys`, complete; ``ignored`` are other keys of the document.

    Raises:
        PayloadError: not UTF-8, not JSON, nested too deeply, or without the list of conversations.
        LimitError: too many bytes or rows.
    """
    del con
    if payload.stat().st_size > MAX_BYTES:
        message = f"{payload.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}"
        raise LimitError(message)
    document = _Document(_text_of(payload))
    files = {out_dir / "000.keys.arrow": KEY_ROWS, out_dir / "000.rows.arrow": TEXT_ROWS}
    try:
        rows = write_rows(_rows(document), files, Budget(limits))
    except RecursionError:
        message = "nested too deeply"
        raise PayloadError(message) from None
    return {"tables": [{"name": TABLE, "rows": rows}], "ignored": document.ignored, "complete": True}


def _rows(document: _Document) -> Iterator[pa.RecordBatch]:
    first = 0
    for items in _batches(document.conversations()):
        yield _batch(items, first)
        first += len(items)


class _Document:
    """A JSON document read from front to back; errors say at which character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._doubled = False
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.ignored: list[str] = []

    def conversations(self) -> Iterator[_Item]:
        """Each member of the list ``conversations``, parsed when it is asked for.

        Raises:
            PayloadError: see `extract_memories`.
        """
        found = False
        for key in self._members("{", "}"):
            if key != TABLE:
                self._value()
                self.ignored += [repr(key[:60])] if len(self.ignored) < MAX_IGNORED else []
                continue
            if found:
                self._fail(f"{TABLE!r} is there twice")
            found = True
            yield from self._items()
        if self._at < len(self._text):
            self._fail("something stands behind the end of the document")
        if not found:
            self._fail(f"expected an object with a list {TABLE!r}, found none")

    def _items(self) -> Iterator[_Item]:
        for _ in self._members("[", "]"):
            self._doubled = False
            value = self._value()
            yield _Item(value, self._doubled)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        self._doubled |= len(made) < len(pairs)
        return made

    def _members(self, first: str, last: str) -> Iterator[str]:
        """Stops before each value: of an object after its key, which is given, of a list at once."""
        self._expect(first)
        if self._next() == last:
            self._expect(last)
            return
        while True:
            if first == "{":
                key = self._value()
                if not isinstance(key, str):
                    self._fail("expected the name of a member")
                self._expect(":")
                yield key
            else:
                yield ""
            if self._next() == last:
                self._expect(last)
                return
            self._expect(",")

    def _value(self) -> Any:  # noqa: ANN401 - whatever JSON says
        self._skip()
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except RecursionError:
            self._fail("nested too deeply")
        except ValueError as error:  # also numbers of more digits than Python converts
            self._fail(str(error)[:120])
        return value

    def _next(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _expect(self, letter: str) -> None:
        if self._next() != letter:
            self._fail(f"expected {letter!r}, found {self._next()!r}")
        self._at += 1
        self._skip()

    def _skip(self) -> None:
        found = _WHITE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _fail(self, what: str) -> NoReturn:
        message = f"at character {self._at:,}: {what}"
        raise PayloadError(message)


def _text_of(payload: Path) -> str:
    try:
        return payload.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"at byte {error.start:,}: {error.reason}, expected UTF-8"
        raise PayloadError(message) from None


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    yield batch


def _batch(items: list[_Item], first: int) -> pa.RecordBatch:
    rows = [{"source_row": first + number, **_row(item)} for number, item in enumerate(items)]
    for row in rows:
        row["has_vector"] = row.get("embedding") is not None
        row["details"] = _json([row.get(name) for name in ("project", "metadata", "attributes")])
    columns = [pa.array([row.get(of.name) for row in rows], of.type) for of in PAYLOAD_ROWS]
    return pa.RecordBatch.from_arrays(columns, schema=PAYLOAD_ROWS)


def _row(item: _Item) -> dict[str, Any]:
    """One conversation as a row of `PAYLOAD_ROWS`; what is absent is NULL. A refused row has its id and its reason only."""
    row: dict[str, Any] = {"attributes": "{}", "bookkeeping": "{}", "unusable_vector": False}
    if not isinstance(item.value, dict):
        return {**row, "refused": "not-an-object"}
    told: dict[str, Any] = item.value
    inner = told["metadata"] if isinstance(told.get("metadata"), dict) else {}
    row |= {
        "record_id": _id_of(told.get("id")),
        "content": told.get("content"),
        "metadata": None if told.get("metadata") is None else _json(told["metadata"]),
        "attributes": "{}" if told.get("source") is None else _json({"source": told["source"]}),
    }
    refused = "doubled-key" if item.doubled else _refusal(row)
    if refused:
        name = _storable(row["record_id"])
        return {
            "record_id": name,
            "refused": refused,
            "attributes": "{}",
            "bookkeeping": "{}",
            "unusable_vector": False,
        }
    vector, unusable = _vector_of(told.get("embedding"))
    times = _times_of(told.get("timestamp"), inner.get("extracted_at"))
    project = _project_of(inner.get("project"))
    return {**row, **times, "project": project, "embedding": vector, "unusable_vector": unusable}


def _refusal(row: dict[str, Any]) -> str | None:
    record_id, content = row["record_id"], row["content"]
    if not record_id:
        return "no-id"
    if not isinstance(content, str):
        return "no-content"
    if _SURROGATE.search(record_id) or _SURROGATE.search(content):
        return "lone-surrogate"
    if len(record_id.encode()) > MAX_ID_BYTES:
        return "long-id"
    if not _VISIBLE.search(content):
        return "blank-content"
    details = max(len((row["metadata"] or "").encode()), len(row["attributes"].encode()))
    if len(content.encode()) > MAX_CONTENT_BYTES or details > MAX_DETAIL_BYTES:
        return "too-long"
    return None


def _id_of(value: object) -> str | None:
    """Ids are text; whole numbers are written as such."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    return value if isinstance(value, str) else None


def _storable(record_id: str | None) -> str | None:
    """An id to name a refused row by."""
    return None if record_id is None else record_id.encode("utf-8", "backslashreplace")[:64].decode("utf-8", "ignore")


def _json(value: object) -> str:
    """JSON text. Lone surrogates stay as the escapes that they were written as; NaN stays NaN."""
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if _SURROGATE.search(text) else text


def _project_of(value: object) -> str | None:
    return value if isinstance(value, str) and value and not _SURROGATE.search(value) else None


def _vector_of(value: object) -> tuple[list[float] | None, bool]:
    """The embedding, and whether there was one that cannot be used. NaN and infinities are judged later."""
    if value is None:
        return None, False
    if not isinstance(value, list) or len(value) != DIMENSION or not all(type(one) in (int, float) for one in value):
        return None, True
    try:
        return [float(one) for one in value], False
    except OverflowError:  # a whole number that no float can hold
        return None, True


def _times_of(timestamp: object, extracted_at: object) -> dict[str, datetime | None]:
    """A time with a zone is UTC and as good as ``metadata.extracted_at``; one without is the client's wall clock.

    A zone other than UTC tells both clocks, so that such a row dates its neighbours that name none.
    """
    told = _moment(timestamp)
    exact = told if told is not None and told.tzinfo is not None else _moment(extracted_at)
    local = None if told is None or (told.tzinfo is not None and not told.utcoffset()) else told.replace(tzinfo=None)
    return {"local_time": _plausible(local), "extracted_at": _plausible(_naive_utc(exact))}


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        return datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _naive_utc(moment: datetime | None) -> datetime | None:
    """`moment` in UTC; ``extracted_at`` is UTC even where it does not say so."""
    if moment is None or moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return None


def _plausible(moment: datetime | None) -> datetime | None:
    return moment if moment is not None and EARLIEST <= moment <= LATEST else None
