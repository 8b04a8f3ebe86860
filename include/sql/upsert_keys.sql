-- The key files after their uploads: live keys with the changed ones replaced, the new ones added, those that go left out.
-- For an upload that changes none the answer lacks keys and is not read.
-- Needs: live = the systems' key files, plan = the result of upsert_plan, both with rank in place of time_evidence.
-- {evidence}: names of the ranks. Params: none. Result: upload, the columns of a key file. Order: upload, source_table, record_id.
WITH changing AS (
    SELECT DISTINCT upload FROM plan WHERE changes_keys
), untouched AS (
    SELECT l.*
    FROM live AS l
    SEMI JOIN changing AS c ON c.upload = l.upload
    ANTI JOIN plan AS p
        ON p.upload = l.upload AND p.source_table = l.source_table AND p.record_id_live = l.record_id AND p.kind <> 'skipped'
)
SELECT
    upload, source_table, record_id, content_xxh128, content_sha256, details_sha256, has_vector, created_at,
    list_extract({evidence}, rank + 1) AS time_evidence, time_manifest, first_manifest, applied_manifest, in_newest, bookkeeping
FROM (
    FROM untouched
    UNION ALL BY NAME
    SELECT upload, source_table, record_id, content_xxh128, content_sha256, details_sha256, has_vector, created_at, rank, time_manifest,
        first_manifest, applied_manifest, in_newest, bookkeeping
    FROM plan
    WHERE kind NOT IN ('gone', 'skipped')
)
ORDER BY upload, source_table, record_id
