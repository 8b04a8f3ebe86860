-- The records of ambiguous systems after an upload of each, with their names.
-- Needs: matched = the result of upsert_matched. Params: none. Result: the columns of matched, and record_id. Order: none.
-- Of several texts under one id the one seen first, in the earliest manifest, has the bare id, whatever order the uploads came
-- in; the others are named base_id~<8 hex of the digest>, or ~<all 64 hex> where two digests begin alike. An id that already
-- looks like such a name never stays bare: it could be another record's.
WITH texts AS (
    SELECT *,
        coalesce(content_sha256, content_sha256_live) AS text_sha256,
        CASE WHEN position IS NULL THEN first_manifest ELSE least(manifest, first_manifest) END AS seen_first
    FROM matched
), ranked AS (
    SELECT *,
        row_number() OVER (PARTITION BY upload, source_table, base_id ORDER BY seen_first, text_sha256) AS place,
        count(*) OVER (PARTITION BY upload, source_table, base_id, left(hex(text_sha256), 8)) AS alike
    FROM texts
)
SELECT * EXCLUDE (text_sha256, seen_first, place, alike),
    CASE
        WHEN place = 1 AND NOT regexp_matches(base_id, '~([0-9a-f]{8}|[0-9a-f]{64})$') THEN base_id
        ELSE base_id || '~' || left(lower(hex(text_sha256)), CASE WHEN alike > 1 THEN 64 ELSE 8 END)
    END AS record_id
FROM ranked
