-- How important records are and when they were last used, as their clients say.
-- Params: $keys path of the system's key file. Needs: wanted(source_table, record_id, place).
-- Result: place, importance (NULL = not said), accessed = the later of last_accessed and last_used_at, naive as the client wrote
--         it (NULL = not said or not a time). Order: none.
SELECT
    place,
    try_cast(json_extract_string(bookkeeping, '$.importance_score') AS DOUBLE) AS importance,
    greatest(
        try_cast(json_extract_string(bookkeeping, '$.last_accessed') AS TIMESTAMP),
        try_cast(json_extract_string(bookkeeping, '$.last_used_at') AS TIMESTAMP)
    ) AS accessed
FROM wanted
JOIN read_parquet($keys) USING (source_table, record_id);
