-- Row numbers of wanted records in one file.
-- Needs: present(system_id, source_table, record_id, row), wanted(system_id, source_table, record_id).
-- Params: none. Result: row. Order: row.
SELECT row FROM present SEMI JOIN wanted USING (system_id, source_table, record_id) ORDER BY row;
