-- SQLite. Cached vectors of one model.
-- params: 1 model_id; 2 JSON array of digests as hexadecimal text
-- result: digest, vector, crc32 of those that are cached; order: none
SELECT digest, vector, crc32
FROM vectors
WHERE model_id = ? AND digest IN (SELECT value FROM json_each(?))
