-- How many keys of each upload are of each kind; an upload that changes nothing has no row.
-- Needs: plan = the result of upsert_plan. Params: none.
-- Result: upload, new, changed, gone, older, retimed, amended, changes = rows of the key file that come, go or change. Order: none.
SELECT
    upload,
    count(*) FILTER (kind = 'new') AS new,
    count(*) FILTER (kind = 'changed') AS changed,
    count(*) FILTER (kind = 'gone') AS gone,
    count(*) FILTER (is_older OR kind = 'skipped') AS older,
    count(*) FILTER (kind = 'kept' AND takes_time) AS retimed,
    count(*) FILTER (kind = 'kept' AND amends AND NOT takes_time) AS amended,
    count(*) FILTER (changes_keys) AS changes
FROM plan
GROUP BY upload
