-- Source tables of an upload whose newest row is as new as the newest live one: a stale copy says nothing about deletion.
-- Needs: arrived, live. Params: none. Result: source_table. Order: none.
SELECT source_table
FROM (SELECT source_table, max(created_at) AS newest FROM arrived GROUP BY source_table)
LEFT JOIN (SELECT source_table, max(created_at) AS newest_live FROM live GROUP BY source_table) USING (source_table)
WHERE newest_live IS NULL OR newest >= newest_live
