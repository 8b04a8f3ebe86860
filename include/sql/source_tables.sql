-- The base tables of an attached upload. Views and macros are not listed, and no view is built for it.
-- Needs: the database attached as `upload`.
-- Result: schema_name, table_name.
-- Order: schema, table.
SELECT schema_name, table_name
FROM duckdb_tables()
WHERE database_name = 'upload' AND NOT internal
ORDER BY schema_name, table_name
