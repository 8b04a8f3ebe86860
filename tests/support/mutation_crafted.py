"""Database files written by a hostile or careless hand: sound for DuckDB, unexpected for a reader.

Each has a filler that runs in the builder's connection with the new file as its default catalogue. What a plain reader finds in the
finished file is the truth; a filler says so where something else has to come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import duckdb
from tests.support.mutation_attempts import Attempt, Kind, objects, refused
from tests.support.mutation_bytes import resealed
from tests.support.mutation_sources import Sound, builder, fill_plainly, pack, table, vector

Connection = duckdb.DuckDBPyConnection
Judged = dict[str, Any]
Fill = Callable[[Connection, Random], "Judged | None"]
MARK = "@MARK@MARK@"
SOURCES = (
    "conversations_v2",
    "reflections_v2",
    "conversations",
    "reflections",
    "default_conversations",
    "x_1_reflections",
)
WORDS = (
    "a\x00b", "\x00", "\u202eevil\u202c", "\u200b\u2060zero width", "\ufeffbom", "\ufffe", "e\u0301", "👩‍👩‍👧", "ق‎abc", "\x1b[31mred", "\r\n",
    "\ufffd", "\U0001d4b3" * 50, "'; DROP TABLE conversations; --", '"}{"', "../../etc/passwd", "__SB64__7aCA", "NULL", "\x7f\x80\x9f", "a" * 5_000,
)  # fmt: skip
BLANK = ("", " ", "\n\t\r ", "\u2003\u00a0", "\u2028")


def crafted(fill: Fill) -> Callable[[str, Random], Attempt]:
    """An upload of the file that `fill` makes."""

    def make(system: str, random: Random) -> Attempt:
        said: Judged = {}

        def run(con: Connection) -> bool:
            said.update(fill(con, random) or {})
            return "truth" not in said

        storage = random.choice(["v1.0.0", "v1.0.0", "v1.2.0", "v1.4.0", "latest"])
        data, records = builder().build(run, storage=storage)
        change, without = said.pop("bytes", bytes), said.pop("without", ())
        data = change(data)
        judged = {"must": "accept", **said}
        truth = judged.pop("truth", {key: record for key, record in records.items() if key[1] not in without})
        source = Sound("crafted", data, truth)
        return Attempt(objects(system, source, stored=pack(data)), truth, **judged)

    return make


def _plain(con: Connection, random: Random, count: int = 4) -> str:
    name = random.choice(SOURCES)
    con.execute(table(name))
    fill_plainly(con, name, count)
    return name


def _row(con: Connection, name: str, record_id: Any, text: Any, **more: Any) -> None:
    columns = {"id": record_id, "content": text, **more}
    marks = ", ".join("?" * len(columns))
    con.execute(f'INSERT INTO "{name}" ({", ".join(columns)}) VALUES ({marks})', list(columns.values()))


def views(con: Connection, random: Random) -> Judged | None:
    """Views named like source tables: never read, whatever they say."""
    real = random.random() < 0.6
    taken = _plain(con, random) if real else ""
    body = random.choice([
        "SELECT 'x' AS id, 'planted by a view' AS content",
        "SELECT filename AS id, content FROM read_text('/etc/hostname')",
        "SELECT 'x' AS id, getvariable('x') AS content",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n::VARCHAR AS id, 'x' AS content FROM r",
        "SELECT id, repeat(content, 1000000) AS content FROM range(1000000) t(id), (SELECT 'x' AS content)",
    ])  # fmt: skip
    for name in random.sample(SOURCES, 3):
        if name != taken:
            con.execute(f'CREATE VIEW "{name}" AS {body}')
    return None if real else refused(["unknown-tables"])


def macros(con: Connection, random: Random) -> None:
    """Macros named like the functions a reader calls."""
    _plain(con, random)
    for name in random.sample(
        ["strlen", "to_json", "json_valid", "coalesce_", "left", "regexp_matches", "nullif_", "concat_ws", "count"], 4
    ):
        con.execute(f"CREATE MACRO \"{name}\"(a) AS 'planted'")
        con.execute(f"CREATE MACRO {name}_table() AS TABLE SELECT 'planted' AS id, 'planted' AS content")


def generated(con: Connection, random: Random) -> Judged | None:
    """Columns that the file computes."""
    name = random.choice(SOURCES)
    expression, fate = random.choice([
        ("'planted ' || id", None), ("upper(id) || number", None), ("repeat(id, 100)", None), ("printf('%s-%d', id, number)", None),
        ("repeat('x', 40000000)", "rows"), ("repeat(id, 40000000)", "either"), ("(number / 0)::VARCHAR || id", None),
    ])  # fmt: skip
    con.execute(
        f'CREATE TABLE "{name}" (id VARCHAR, number INTEGER, content VARCHAR GENERATED ALWAYS AS ({expression}) VIRTUAL)'
    )
    for number in range(3):
        con.execute(f'INSERT INTO "{name}" VALUES (?, ?)', [f"id-{number}", number])
    return {"truth": {}, "must": "accept" if fate == "rows" else ""} if fate else None


def odd_columns(con: Connection, random: Random) -> None:
    """The columns a reader knows, in types it does not expect."""
    name = random.choice(SOURCES)
    ids = random.choice([
        ("INTEGER", "i::INTEGER"), ("UUID", "uuid()"), ("HUGEINT", "(i * 10)::HUGEINT"), ("BLOB", "encode('id' || i)"),
        ("DOUBLE", "i + 0.5"), ("DATE", "DATE '2026-01-01' + i::INTEGER"), ("DECIMAL(30,10)", "i + 0.125"), ("JSON", "to_json(i)"),
        ("VARCHAR[]", "['a', i::VARCHAR]"), ("STRUCT(a INTEGER, b VARCHAR)", "{'a': i::INTEGER, 'b': 'x'}"),
        ("ENUM('a', 'b', 'c', 'd')", "['a', 'b', 'c', 'd'][i::INTEGER + 1]"), ("BIT", "(i + 1)::INTEGER::BIT"),
        ("MAP(VARCHAR, INTEGER)", "MAP {'k': i::INTEGER}"), ("INTERVAL", "to_days(i::INTEGER)"), ("TIMESTAMP_NS", "make_timestamp_ns(i)"),
        ("UNION(a INTEGER, b VARCHAR)", "union_value(a := i::INTEGER)"),
    ])  # fmt: skip
    texts = random.choice([
        ("JSON", "to_json('text ' || i)"), ("BLOB", "'\\xAA\\x00text'::BLOB || encode(i::VARCHAR)"), ("BIGINT", "i"),
        ("VARCHAR[]", "['text', NULL, i::VARCHAR]"), ("STRUCT(t VARCHAR, n STRUCT(m INTEGER[]))", "{'t': 'x' || i, 'n': {'m': [i::INTEGER]}}"),
        ("TIMESTAMP", "TIMESTAMP '2026-01-01' + to_days(i::INTEGER)"), ("DOUBLE", "'nan'::DOUBLE"), ("BOOLEAN", "i % 2 = 0"),
        ("VARCHAR[3]", "['a', 'b', i::VARCHAR]"), ("ENUM('only')", "'only'"),
    ])  # fmt: skip
    more = random.sample([
        ("timestamp", "VARCHAR", "'yesterday'"), ("timestamp", "BIGINT", "1795000000"), ("timestamp", "TIMESTAMPTZ", "now()"),
        ("timestamp", "TIMESTAMP", "'infinity'::TIMESTAMP"), ("timestamp", "DATE", "DATE '0044-03-15 (BC)'"), ("metadata", "STRUCT(a INTEGER)", "{'a': 1}"),
        ("metadata", "VARCHAR", "'{broken'"), ("metadata", "VARCHAR", "repeat('[', 5000)"), ("metadata", "BLOB", "'\\xFF'::BLOB"),
        ("tags", "VARCHAR", "'[a, b]'"), ("tags", "JSON", "'[1, 2]'::JSON"), ("tags", "INTEGER[]", "[1, 2]"), ("tags", "VARCHAR[][]", "[['a']]"),
        ("access_count", "VARCHAR", "'many'"), ("access_count", "HUGEINT", "170141183460469231731687303715884105727"),
        ("importance_score", "VARCHAR", "'-inf'"), ("project", "JSON", "'{}'::JSON"), ("category", "INTEGER", "7"),
        ("last_accessed", "TIME", "TIME '12:00'"), ("related_entities", "MAP(VARCHAR, VARCHAR)", "MAP {'a': 'b'}"),
    ], 5)  # fmt: skip
    chosen = {"id": ids, "content": texts} | {column: (kind, value) for column, kind, value in more}
    columns = ", ".join(f"{column} {kind}" for column, (kind, _) in chosen.items())
    con.execute(f'CREATE TABLE "{name}" ({columns})')
    con.execute(f'INSERT INTO "{name}" SELECT {", ".join(value for _, value in chosen.values())} FROM range(3) t(i)')


def odd_vectors(con: Connection, random: Random) -> None:
    """Vectors that are not finite, not of unit length, not of 384 numbers, or not vectors: the text is taken without them."""
    name = random.choice(SOURCES)
    kind = random.choice(
        [
            "FLOAT[384]",
            "FLOAT[384]",
            "DOUBLE[384]",
            "FLOAT[]",
            "DOUBLE[]",
            "VARCHAR",
            "FLOAT[383]",
            "INTEGER[]",
            "FLOAT[384][]",
        ]
    )
    con.execute(f'CREATE TABLE "{name}" (id VARCHAR, content VARCHAR, embedding {kind})')
    good = vector(random.randrange(1_000))
    spoiled = [
        good, [0.0] * 384, [float("nan"), *good[1:]], [*good[:-1], float("inf")], [*good[:-1], float("-inf")], [3e38] * 384, [1e-40] * 384,
        [value * 1.009 for value in good], [value * 1.02 for value in good], [value * 0.5 for value in good], [None, *good[1:]], None,
        good[:-1], [*good, 0.0], [], [1e300, *good[1:]],
    ]  # fmt: skip
    size = {"FLOAT[384]": 384, "DOUBLE[384]": 384, "FLOAT[383]": 383}.get(kind)
    for number, value in enumerate(spoiled):
        fits = value is None or size is None or len(value) == size
        given: Any = value if fits else None
        if kind.startswith("FLOAT") and given and 1e300 in given:
            given = None
        if kind == "INTEGER[]":
            given = None if value is None else [1 if place == number else 0 for place in range(len(value))]
        if kind == "VARCHAR" and given is not None:
            given = str(given)
        if kind == "FLOAT[384][]" and given is not None:
            given = [given] if len(given) == 384 and 1e300 not in given else None
        if kind == "FLOAT[383]" and given is None and value is not None:
            given = value[:383]
            given = None if len(given) < 383 or 1e300 in given else given
        _row(con, name, f"v-{number}", f"text {number}", embedding=given)


def odd_texts(con: Connection, random: Random) -> None:
    """NULs, controls, bidirectional overrides, blanks and quotes, in ids and in texts."""
    name = _plain(con, random, 1)
    for number in range(12):
        record_id = random.choice(
            [
                f"t-{number}",
                f"{random.choice(WORDS)}{number}",
                random.choice(BLANK),
                None,
                "i" * 1_024,
                "i" * 1_025,
                "ü" * 513,
            ]
        )
        text = random.choice(
            [f"{random.choice(WORDS)} {number}", f"{random.choice(WORDS)} {number}", random.choice(BLANK), None]
        )
        _row(con, name, record_id, text, project=random.choice([None, *WORDS]), metadata=random.choice([None, *WORDS]))


def repeated(con: Connection, random: Random) -> None:
    """A table without a primary key whose ids stand several times: the row written last is taken."""
    name = random.choice(SOURCES)
    con.execute(table(name))
    for number in range(random.randrange(2, 30)):
        text = f"version {number}" if random.random() < 0.9 else None
        _row(con, name, f"d-{random.randrange(5)}", text, embedding=vector(number) if random.random() < 0.5 else None)


def deleted(con: Connection, random: Random) -> None:
    """Row numbers with gaps: rows deleted and rewritten before the file was copied."""
    name = random.choice(SOURCES)
    con.execute(table(name))
    fill_plainly(con, name, 30)
    con.execute("COMMIT")
    con.execute("BEGIN")
    con.execute(f'DELETE FROM "{name}" WHERE hash(id) % 3 = {random.randrange(3)}')
    con.execute(f"UPDATE \"{name}\" SET content = content || ' rewritten' WHERE hash(id) % 2 = 0")
    fill_plainly(con, name, 5, first=30)


def wide(con: Connection, random: Random) -> None:
    """Three hundred columns, in any case and order, names that need quoting among them."""
    name = random.choice(SOURCES)
    columns = [f'"column {n}""; --" VARCHAR' for n in range(297)] + [
        '"ID" VARCHAR',
        '"Content" VARCHAR',
        '"EMBEDDING" FLOAT[384]',
    ]
    random.shuffle(columns)
    con.execute(f'CREATE TABLE "{name}" ({", ".join(columns)})')
    for number in range(3):
        _row(con, name, f"w-{number}", f"text {number}", embedding=vector(number))


def many_tables(con: Connection, random: Random) -> Judged | None:
    """More source tables than anybody needs."""
    count = random.choice([3, 40, 256, 257, 300])
    for number in range(count):
        con.execute(f"CREATE TABLE c{number}_conversations AS SELECT 'm' AS id, 'text {number}' AS content")
    return refused(["too-large"]) if count > 256 else None


def schemas(con: Connection, random: Random) -> Judged | None:
    """Source tables in other schemas, also in ones named like catalogues of a reader."""
    real = random.random() < 0.6
    if real:
        _plain(con, random)
    for schema in random.sample(["upload", "memory", "evil", "system_", "temp_", "MAIN2", "a.b", 'q"q', "éé"], 3):
        quoted = '"' + schema.replace('"', '""') + '"'
        con.execute(f"CREATE SCHEMA {quoted}")
        for name in random.sample(SOURCES, 2):
            con.execute(
                f"CREATE TABLE made.{quoted}.{name} AS SELECT 'x' AS id, 'planted in another schema' AS content"
            )
    return None if real else refused(["unknown-tables"])


def names(con: Connection, random: Random) -> Judged | None:
    """Tables named almost like source tables."""
    real = random.random() < 0.6
    if real:
        _plain(con, random)
    almost = [
        "Conversations_V3", "conversations_v22", "conversation", "my-conversations", "x.conversations", "conversations;", "_", "refléctions",
        "conversations_v2 ", " reflections", "a" * 200 + "_reflection", "../conversations", "conv\u0430rsations_", "conversations_v2\x01",
    ]  # fmt: skip
    for name in random.sample(almost, 4):
        con.execute(f"CREATE TABLE \"{name}\" AS SELECT 'x' AS id, 'planted under a like name' AS content")
    return None if real else refused(["unknown-tables"])


def furniture(con: Connection, random: Random) -> None:
    """Types, sequences, indexes, checks and keys around the rows."""
    name = random.choice(SOURCES)
    con.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    con.execute("CREATE SEQUENCE seq START 7")
    con.execute("CREATE TABLE parents (id VARCHAR PRIMARY KEY)")
    con.execute("INSERT INTO parents VALUES ('p')")
    con.execute(
        f'CREATE TABLE "{name}" (id VARCHAR PRIMARY KEY, content VARCHAR NOT NULL CHECK (length(content) < 99999), embedding FLOAT[384],'
        " n INTEGER DEFAULT nextval('seq'), parent VARCHAR REFERENCES parents (id), m mood)"
    )
    for number in range(4):
        _row(con, name, f"f-{number}", f"text {number}", embedding=vector(number), parent="p", m="ok")
    con.execute(f'CREATE INDEX by_text ON "{name}" (content)')


def nested(con: Connection, random: Random) -> None:
    """Types inside types inside types."""
    name = random.choice(SOURCES)
    depth = random.choice([3, 20, 60])
    kind, value = "INTEGER", "1"
    for level in range(depth):
        if level % 2:
            kind, value = f"{kind}[]", f"[{value}]"
        else:
            kind, value = f"STRUCT(a {kind})", "{'a': " + value + "}"
    con.execute(f'CREATE TABLE "{name}" (id VARCHAR, content VARCHAR, metadata {kind}, tags {kind}, extra {kind})')
    con.execute(f"INSERT INTO \"{name}\" SELECT 'n', 'text', {value}, {value}, {value}")


def lacking(con: Connection, random: Random) -> None:
    """Source tables without the columns that make a record, or without rows."""
    columns = random.choice(["x INTEGER", "id VARCHAR", "content VARCHAR", "content VARCHAR, embedding FLOAT[384]"])
    if random.random() < 0.2:
        con.execute(f"CREATE TABLE {random.choice(SOURCES)} AS SELECT NULL AS id WHERE false")
    con.execute(f"CREATE TABLE more_conversations ({columns})")
    if random.random() < 0.7:
        con.execute(f"INSERT INTO more_conversations ({columns.split()[0]}) VALUES ('1')")


def long_texts(con: Connection, random: Random) -> Judged | None:
    """Texts of ten megabytes are memories; of seventeen they are rows to refuse. The rows beside them stay."""
    name = _plain(con, random, 2)
    size = random.choice([1 << 20, 10 << 20, 16 << 20, (16 << 20) + 1, 17 << 20])
    _row(con, name, "long", "word " * (size // 5) + "x" * (size % 5))
    if random.random() < 0.3:
        _row(con, name, "details", "a text with far too many details", metadata=json.dumps({"k": "v" * (5 << 20)}))
        return {"without": ("details",)}
    return None


def bombs(con: Connection, random: Random) -> Judged | None:
    """Small files that unfold: repeated rows and repeated texts, kept in a few bytes."""
    name = random.choice(SOURCES)
    con.execute(random.choice([
        f"CREATE TABLE \"{name}\" AS SELECT 'x' AS id, 'x' AS content FROM range(200000)",
        f"CREATE TABLE \"{name}\" AS SELECT i::VARCHAR AS id, repeat('bomb ', 200000) AS content FROM range(60) t(i)",
        f"CREATE TABLE \"{name}\" AS SELECT i::VARCHAR AS id, 'y' AS content, repeat('m', 4000000) AS metadata FROM range(15) t(i)",
    ]))  # fmt: skip
    return {**refused(["too-large"]), "truth": {}}


def raw_text(con: Connection, random: Random) -> Judged:
    """Bytes that are no UTF-8, lone surrogates among them, put into the file with its checksums made right."""
    name = random.choice(SOURCES)
    con.execute(table(name))
    fill_plainly(con, name, 2)
    column = random.choice(["id", "content", "project", "metadata"])
    _row(con, name, **{"record_id": "r", "text": "text", column: f"{MARK} text"} if column in {"project", "metadata"} else
         {"record_id": f"{MARK} id" if column == "id" else "r", "text": f"{MARK} text" if column == "content" else "text"})  # fmt: skip
    bad = random.choice(
        [b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xff", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", b"\x80", b"\xf4\x90\x80\x80"]
    )

    def change(data: bytes) -> bytes:
        at = data.find(MARK.encode())
        while at >= 0:
            data = resealed(data[:at] + (bad + MARK.encode())[: len(MARK)] + data[at + len(MARK) :], at)
            at = data.find(MARK.encode())
        return data

    return {"bytes": change, **refused(["damaged", "unreadable"])}


def locked(con: Connection, random: Random) -> Judged:
    """A header that promises another storage version."""
    _plain(con, random)
    version = random.choice([0, 1, 63, 69, 998, 1_000, 1 << 32, (1 << 64) - 1])

    def change(data: bytes) -> bytes:
        return resealed(data[:12] + version.to_bytes(8, "little") + data[20:], 12)

    return {"bytes": change, "must": ""}


def encrypted(system: str, random: Random) -> Attempt:
    """A file that needs a key nobody has."""

    def fill(con: Connection) -> bool:
        _plain(con, random)
        return False

    data, _ = builder().build(fill, storage="latest", options="ENCRYPTION_KEY 'secret'")
    return Attempt(objects(system, Sound("crafted", data, {}), stored=pack(data)), **refused(["unreadable", "damaged"]))


def storages(con: Connection, random: Random) -> None:
    """Every layer in one file."""
    for name in SOURCES:
        con.execute(table(name))
        fill_plainly(con, name, 2)


KINDS = (
    Kind("sql-views", crafted(views), 60),
    Kind("sql-macros", crafted(macros), 25),
    Kind("sql-generated", crafted(generated), 40),
    Kind("sql-odd-columns", crafted(odd_columns), 120),
    Kind("sql-odd-vectors", crafted(odd_vectors), 90),
    Kind("sql-odd-texts", crafted(odd_texts), 100),
    Kind("sql-repeated-ids", crafted(repeated), 40),
    Kind("sql-deleted-rows", crafted(deleted), 30),
    Kind("sql-wide", crafted(wide), 15),
    Kind("sql-many-tables", crafted(many_tables), 10),
    Kind("sql-schemas", crafted(schemas), 50),
    Kind("sql-names", crafted(names), 40),
    Kind("sql-furniture", crafted(furniture), 20),
    Kind("sql-nested", crafted(nested), 30),
    Kind("sql-lacking", crafted(lacking), 20),
    Kind("sql-long-texts", crafted(long_texts), 20),
    Kind("sql-bombs", crafted(bombs), 12),
    Kind("sql-not-utf-8", crafted(raw_text), 60),
    Kind("sql-storage-version", crafted(locked), 40),
    Kind("sql-encrypted", encrypted, 10),
    Kind("sql-every-layer", crafted(storages), 10),
)
