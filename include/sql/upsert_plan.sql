-- What some uploads, one of each system, change about the keys of their systems.
-- Needs: named = the result of upsert_matched, with the final record_id.
-- Params: $deletes whether live keys that a system's newest upload lacks go away; an older one then adds none either.
-- {deletable}: whether the upload says anything about the absence of a key.
-- Result: upload, and one row for each key that is new, changes or goes, the columns of a key file among them (rank in place of
--         time_evidence). kind: new, changed (another text), kept, gone, skipped (not taken). is_older: the upload's text did
--         not replace a newer one. Order: none.
-- A time changes only for better evidence; at equal rank the earliest manifest decides, then the earlier time.
-- Of two uploads made at the same instant neither deletes what the other holds.
-- in_newest: whether the system's newest upload holds the key; else applied_manifest says which upload did last.
WITH judged AS (
    SELECT *,
        newest IS NULL OR manifest >= newest AS is_newest,
        position IS NOT NULL AND (record_id_live IS NULL OR rank < rank_live
            OR (rank = rank_live AND (manifest, created_at) < (time_manifest, created_at_live))) AS better_time,
        CASE
            WHEN position IS NULL
            THEN CASE WHEN $deletes AND is_newest AND (manifest > newest OR NOT in_newest) AND {deletable} THEN 'gone' ELSE 'kept' END
            WHEN record_id_live IS NULL THEN CASE WHEN is_newest OR NOT $deletes THEN 'new' ELSE 'skipped' END
            WHEN wins AND content_sha256 <> content_sha256_live THEN 'changed'
            ELSE 'kept'
        END AS kind,
        position IS NOT NULL AND NOT wins AND content_sha256 <> content_sha256_live AS is_older
    FROM named
), after AS (
    SELECT
        upload, position, source_table, record_id, record_id_live, kind, is_older, created_at_live,
        coalesce(kind = 'kept' AND wins AND details_sha256 <> details_sha256_live, false) AS takes_details,
        coalesce(kind = 'kept' AND NOT is_older AND has_vector AND NOT has_vector_live, false) AS takes_vector,
        better_time AND (created_at_live <> created_at OR rank_live <> rank) AS takes_time,
        CASE WHEN kind IN ('new', 'changed') OR content_sha256 = content_sha256_live THEN content_xxh128 ELSE content_xxh128_live END
            AS content_xxh128,
        CASE WHEN kind IN ('new', 'changed') THEN content_sha256 ELSE content_sha256_live END AS content_sha256,
        CASE WHEN position IS NOT NULL AND wins THEN details_sha256 ELSE details_sha256_live END AS details_sha256,
        CASE
            WHEN kind IN ('new', 'changed') THEN has_vector
            ELSE has_vector_live OR (NOT is_older AND coalesce(has_vector, false))
        END AS has_vector,
        CASE WHEN better_time THEN created_at ELSE created_at_live END AS created_at,
        CASE WHEN better_time THEN rank ELSE rank_live END AS rank,
        CASE WHEN better_time THEN manifest ELSE time_manifest END AS time_manifest,
        CASE WHEN position IS NULL THEN first_manifest ELSE least(manifest, first_manifest) END AS first_manifest,
        CASE WHEN position IS NULL THEN effective ELSE greatest(manifest, effective) END AS applied_manifest,
        CASE WHEN is_newest AND (newest IS NULL OR manifest > newest) THEN position IS NOT NULL
             WHEN is_newest THEN position IS NOT NULL OR in_newest
             ELSE coalesce(in_newest, false) END AS in_newest,
        CASE WHEN position IS NOT NULL AND wins THEN bookkeeping ELSE bookkeeping_live END AS bookkeeping,
        time_manifest AS time_manifest_live, first_manifest AS first_manifest_live,
        applied_manifest AS applied_manifest_live, in_newest AS in_newest_live,
        details_sha256_live, has_vector_live, bookkeeping_live, rank_live
    FROM judged
)
SELECT *,
    takes_details OR takes_vector OR takes_time OR record_id <> record_id_live AS amends,
    kind IN ('new', 'changed', 'gone') OR (kind = 'kept' AND (
        record_id <> record_id_live
        OR in_newest <> in_newest_live
        OR (NOT in_newest AND applied_manifest <> applied_manifest_live)
        OR (details_sha256, has_vector, created_at, rank, time_manifest, first_manifest, bookkeeping) <> (details_sha256_live,
            has_vector_live, created_at_live, rank_live, time_manifest_live, first_manifest_live, bookkeeping_live)
    )) AS changes_keys
FROM after
WHERE changes_keys OR is_older OR kind = 'skipped'
