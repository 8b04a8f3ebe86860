-- The base tables of an attached upload. Views and macros are not listed.
-- Needs: the database attached as `upload`.
-- Result: schema_name, name.
-- Order: schema, name.
SELECT schema_name, table_name AS name
FROM duckdb_tables()
WHERE database_name = 'upload' AND NOT internal
ORDER BY schema_name, name
