-- Live records that keep their text but are written anew in their place: better time, other details, a vector, another name.
-- Needs: plan = the result of upsert_plan. {evidence}: names of the ranks. Params: none.
-- Result: upload, source_table, record_id_live, created_live = how their files know them; record_id, created_at, time_evidence = what
--         they become; takes_time, takes_details, takes_vector; position in the upload, NULL when it lacks them.
-- Order: upload, source_table, record_id_live.
SELECT upload, source_table, record_id_live, created_at_live AS created_live, record_id, created_at,
    list_extract({evidence}, rank + 1) AS time_evidence, takes_time, takes_details, takes_vector, position
FROM plan
WHERE kind = 'kept' AND amends
ORDER BY upload, source_table, record_id_live
