-- SQLite. One vector per embedding model and content digest.
--   model_id  id under include/models
--   digest    SHA-256 of the content as received, 64 hexadecimal digits
--   vector    float32 values, little-endian
--   crc32     CRC-32 of `vector`: SQLite does not check its pages
-- params: none; result: none
CREATE TABLE IF NOT EXISTS vectors (
    model_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    vector BLOB NOT NULL,
    crc32 INTEGER NOT NULL,
    PRIMARY KEY (model_id, digest)
) WITHOUT ROWID
