-- The columns of the base tables of an attached upload. Views and macros are not listed.
-- Needs: the database attached as `upload`.
-- Result: schema_name, table_name, column_name, data_type (as DuckDB writes it, for example FLOAT[384]).
-- Order: schema, table, as in the table.
SELECT schema_name, table_name, column_name, data_type
FROM duckdb_columns()
JOIN (SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT internal)
    USING (database_name, schema_name, table_name)
WHERE database_name = 'upload'
ORDER BY schema_name, table_name, column_index
