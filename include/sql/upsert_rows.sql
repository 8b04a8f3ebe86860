-- The rows of uploads whose texts are needed: new and changed records, and live ones that take its details or its vector.
-- Needs: plan = the result of upsert_plan. {evidence}: names of the ranks. Params: none.
-- Result: upload, position, source_table, record_id, created_at, time_evidence, is_revision = whether a new hot row is made of it.
-- Order: upload, position.
SELECT upload, position, source_table, record_id, created_at, list_extract({evidence}, rank + 1) AS time_evidence,
    kind IN ('new', 'changed') AS is_revision
FROM plan
WHERE kind IN ('new', 'changed') OR takes_details OR takes_vector
ORDER BY upload, position
