-- SQLite. Store one vector; what is there under the same key is replaced (it may have been damaged).
-- params: 1 model_id; 2 digest as hexadecimal text; 3 vector as float32 bytes; 4 CRC-32 of the vector
-- result: none
INSERT OR REPLACE INTO vectors (model_id, digest, vector, crc32) VALUES (?, ?, ?, ?)
