-- Rows of an upload whose key stands in a later row of the same table.
-- Needs: arrived(position, source_table, record_id). Params: none. Result: position, source_table, record_id. Order: position.
WITH repeated AS (
    SELECT source_table, record_id, max(position) AS last
    FROM arrived
    GROUP BY ALL
    HAVING count(*) > 1
)
SELECT a.position, a.source_table, a.record_id
FROM arrived AS a
JOIN repeated AS r USING (source_table, record_id)
WHERE a.position < r.last
ORDER BY a.position
