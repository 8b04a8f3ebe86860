-- Switches off the one compression that draws a random sample, so that equal rows give equal bytes.
-- No parameters, no result. DuckDB 2.0.0 silently ignores this setting among the options of a new connection.
SET disabled_compression_methods = 'fsst';
