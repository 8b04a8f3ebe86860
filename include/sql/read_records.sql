-- Rows of a file with their row numbers.
-- Params: {columns} quoted column names; $before only rows created before, or NULL for all.
-- Result: the columns, then row. Order: that of the file in practice; the caller sorts when it is not, because sorting
-- here copies every vector: 45 % of the time of a read.
SELECT {columns}, rowid AS row
FROM f.records
WHERE $before IS NULL OR created_at < $before::TIMESTAMPTZ;
