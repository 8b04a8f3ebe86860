-- Somebody else's database: tables that no Session-Buddy client has, with rows.
-- No parameters, no result.

CREATE TABLE notes (id INTEGER PRIMARY KEY, title VARCHAR, body VARCHAR);
CREATE TABLE settings (name VARCHAR, value VARCHAR);
INSERT INTO notes SELECT i, 'note ' || i, 'This table belongs to another program.' FROM range(40) AS numbers(i);
INSERT INTO settings VALUES ('theme', 'dark'), ('language', 'en');
