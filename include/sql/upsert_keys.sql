-- The key file after an upload: live keys with the changed ones replaced and the new ones added.
-- Needs: live = the system's key file, plan = the result of upsert_plan.
-- Params: none. Result: the columns of a key file. Order: source_table, record_id.
SELECT source_table, record_id, content_sha256, created_at, time_evidence, time_manifest, applied_manifest, bookkeeping
FROM live
ANTI JOIN plan USING (source_table, record_id)
UNION ALL
SELECT source_table, record_id, content_sha256, created_at, time_evidence, time_manifest, applied_manifest, bookkeeping
FROM plan
ORDER BY source_table, record_id;
