-- What a file says of itself.
-- Params: none. Result: name, value. Order: name.
SELECT name, value FROM f.about ORDER BY name;
