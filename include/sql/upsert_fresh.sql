-- Source tables of uploads that hold the newest record there is: a stale copy says nothing about deletion.
-- Needs: uploads, arrived, live, as upsert_matched. Params: none. Result: upload, source_table. Order: none.
-- Times count as they are after the upload (as in upsert_plan), so that the same upload says the same a second time.
SELECT upload, source_table
FROM (
    SELECT
        upload, source_table,
        position IS NOT NULL AS is_here,
        CASE
            WHEN position IS NULL THEN l.created_at
            WHEN l.rank IS NULL OR a.rank < l.rank
                OR (a.rank = l.rank AND (manifest, a.created_at) < (l.time_manifest, l.created_at)) THEN a.created_at
            ELSE l.created_at
        END AS created
    FROM arrived AS a
    FULL JOIN live AS l USING (upload, source_table, record_id)
    JOIN uploads USING (upload)
)
GROUP BY upload, source_table
HAVING max(created) FILTER (is_here) >= max(created) FILTER (NOT is_here) OR bool_and(is_here)
