-- Fills a new file from an Arrow table, keeping its order: rowid is the row number that removal lists use.
-- Params: none. Needs: the file attached as f, the rows registered as incoming. Result: f.records.
INSERT INTO f.records BY NAME SELECT * FROM incoming;
