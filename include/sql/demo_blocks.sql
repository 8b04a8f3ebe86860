-- Numbers of the data blocks that hold the column `content` of a table, smallest first.
-- Params: the table's name. Needs: the file as the current catalogue, checkpointed. Result: block_id.
SELECT DISTINCT block_id
FROM pragma_storage_info(?)
WHERE column_name = 'content' AND segment_type = 'VARCHAR' AND block_id >= 0
ORDER BY block_id;
