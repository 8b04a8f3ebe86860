-- The table of a warm file.
-- Params: none. Needs: the file attached as f. Result: f.records, empty.
-- codes are TINYINT: DuckDB's INT8 is BIGINT. A value is codes[i] * scale.
-- Summaries are not compressed: trying to is half of the time of a write, for a sixth of the bytes.
-- Digests and fingerprints do not compress in DuckDB, and trying takes half of the time of a write: files are as large without.
CREATE TABLE f.records (
    system_id       VARCHAR NOT NULL,
    source_table    VARCHAR NOT NULL,
    record_id       VARCHAR NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    time_evidence   VARCHAR NOT NULL,
    content_sha256  BLOB USING COMPRESSION uncompressed NOT NULL,
    summary         VARCHAR USING COMPRESSION uncompressed NOT NULL,
    sentence        VARCHAR USING COMPRESSION uncompressed NOT NULL,
    fingerprint     BLOB USING COMPRESSION uncompressed NOT NULL,
    codes           TINYINT[384],
    scale           FLOAT,
    embedding_model VARCHAR,
    project         VARCHAR,
    metadata        VARCHAR,
    attributes      VARCHAR NOT NULL,
    provenance      VARCHAR NOT NULL
);
