-- Live records whose rows leave the lake: their text changes, or they go.
-- Needs: plan = the result of upsert_plan. Params: none.
-- Result: upload, source_table, record_id, created_live. Order: upload, source_table, record_id.
SELECT upload, source_table, record_id_live AS record_id, created_at_live AS created_live
FROM plan
WHERE kind IN ('changed', 'gone')
ORDER BY upload, source_table, record_id
