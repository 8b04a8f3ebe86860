-- What a file says of itself: format, kind, codecs and models.
-- Params: $1 list of names, $2 list of values, equally long. Result: f.about(name, value).
CREATE TABLE f.about AS SELECT unnest($1::VARCHAR[]) AS name, unnest($2::VARCHAR[]) AS value;
