-- The key file after an upload: live keys with the changed ones replaced, the new ones added, those that go left out.
-- Needs: live = the system's key file, plan = the result of upsert_plan, both with rank in place of time_evidence.
-- {evidence}: names of the ranks. Params: none. Result: the columns of a key file. Order: source_table, record_id.
WITH untouched AS (
    SELECT l.*
    FROM live AS l
    ANTI JOIN plan AS p
        ON p.source_table = l.source_table AND p.record_id_live = l.record_id AND p.kind <> 'skipped'
)
SELECT
    source_table, record_id, content_xxh128, content_sha256, details_sha256, has_vector, created_at,
    list_extract({evidence}, rank + 1) AS time_evidence, time_manifest, first_manifest, applied_manifest, in_newest, bookkeeping
FROM (
    FROM untouched
    UNION ALL BY NAME
    SELECT source_table, record_id, content_xxh128, content_sha256, details_sha256, has_vector, created_at, rank, time_manifest, first_manifest,
        applied_manifest, in_newest, bookkeeping
    FROM plan
    WHERE kind NOT IN ('gone', 'skipped')
)
ORDER BY source_table, record_id
