-- How many keys of an upload are of each kind.
-- Needs: plan = the result of upsert_plan, arrived = the upload's keys. Params: none.
-- Result: one row: arrived, new, changed, gone, older, retimed, amended, changes = rows of the key file that come, go or change. Order: none.
SELECT
    (SELECT count(*) FROM arrived) AS arrived,
    count(*) FILTER (kind = 'new') AS new,
    count(*) FILTER (kind = 'changed') AS changed,
    count(*) FILTER (kind = 'gone') AS gone,
    count(*) FILTER (is_older OR kind = 'skipped') AS older,
    count(*) FILTER (kind = 'kept' AND takes_time) AS retimed,
    count(*) FILTER (kind = 'kept' AND amends AND NOT takes_time) AS amended,
    count(*) FILTER (changes_keys) AS changes
FROM plan
