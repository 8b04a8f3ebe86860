-- Rows of a file with their row numbers.
-- Params: {columns} quoted column names; $before only rows created before, or NULL for all.
-- Result: the columns, then row. Order: row.
SELECT {columns}, rowid AS row
FROM f.records
WHERE $before IS NULL OR created_at < $before::TIMESTAMPTZ
ORDER BY rowid;
