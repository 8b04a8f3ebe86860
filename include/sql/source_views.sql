-- The views that the client's file defines; asked only of a file without tables, since the listing builds every view.
-- Needs: the database attached as `upload`.
-- Result: schema_name, name.
-- Order: schema, name.
SELECT schema_name, view_name AS name
FROM duckdb_views()
WHERE database_name = 'upload' AND NOT internal
ORDER BY schema_name, name
