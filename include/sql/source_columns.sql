-- The columns of one base table of an attached upload.
-- Needs: the database attached as `upload`. Parameter: $table, a name in schema main.
-- Result: column_name, data_type (as DuckDB writes it, for example FLOAT[384]).
-- Order: as in the table.
SELECT column_name, data_type
FROM duckdb_columns()
WHERE database_name = 'upload' AND schema_name = 'main' AND table_name = $table
ORDER BY column_index
