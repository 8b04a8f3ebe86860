-- One source table of an upload as uniform rows.
-- {source}: a SELECT over the table that yields the row's number and id, content, metadata, project, created_at, timestamp
--   and embedding, already cast; a column that the client's version lacks is a typed NULL. `has_embedding` tells an
--   unusable vector from a missing one. All other columns are in two JSON objects, attributes and bookkeeping.
-- {columns}: which of the columns of the last WITH are wanted; what is not wanted is not computed.
-- Params, from the declared quality rules: $max_id_bytes, $max_content_bytes, $max_details_bytes, $earliest, $latest.
-- refused: why a row cannot become a record (no-id, long-id, no-content, blank-content, too-long), else NULL. What is too
--   long is not carried along.
-- bookkeeping holds what changes between snapshots without being a new revision; details is everything else beside the
--   text, for its digest.
-- local_time: naive wall-clock time of the client; extracted_at, checkpoint_at: UTC. Outside the range = NULL.
-- Order: as stored.
WITH parsed AS (
    SELECT
        *,
        CASE WHEN json_valid(metadata) THEN metadata END AS readable
    FROM ({source})
), timed AS (
    SELECT
        *,
        coalesce(created_at, timestamp) AS stored_at,
        TRY_CAST(readable ->> '$.extracted_at' AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS extracted,
        CASE
            WHEN readable ->> '$.checkpoint_type' IS NOT NULL
                AND regexp_matches(readable ->> '$.timestamp', '(Z|[+-]\d\d:?\d\d)$')
            THEN TRY_CAST(readable ->> '$.timestamp' AS TIMESTAMPTZ) AT TIME ZONE 'UTC'
        END AS checkpoint
    FROM parsed
), bounded AS (
    SELECT
        source_row,
        CASE WHEN strlen(id) <= $max_id_bytes THEN id ELSE left(id, 64) END AS record_id,
        CASE WHEN strlen(content) <= $max_content_bytes THEN content END AS content,
        embedding,
        CASE WHEN stored_at BETWEEN $earliest::TIMESTAMP AND $latest::TIMESTAMP THEN stored_at END AS local_time,
        coalesce(
            nullif(project, ''),
            CASE WHEN json_type(readable, '$.project') = 'VARCHAR' THEN nullif(readable ->> '$.project', '') END
        ) AS project,
        CASE WHEN strlen(metadata) <= $max_details_bytes THEN metadata END AS metadata,
        CASE WHEN strlen(attributes) <= $max_details_bytes THEN attributes ELSE '{}' END AS attributes,
        CASE WHEN strlen(bookkeeping) <= $max_details_bytes THEN bookkeeping ELSE '{}' END AS bookkeeping,
        CASE WHEN extracted BETWEEN $earliest::TIMESTAMP AND $latest::TIMESTAMP THEN extracted END AS extracted_at,
        CASE WHEN checkpoint BETWEEN $earliest::TIMESTAMP AND $latest::TIMESTAMP THEN checkpoint END AS checkpoint_at,
        CASE
            WHEN id IS NULL OR id = '' THEN 'no-id'
            WHEN strlen(id) > $max_id_bytes THEN 'long-id'
            WHEN content IS NULL THEN 'no-content'
            WHEN NOT ascii(content) BETWEEN 33 AND 126 AND NOT regexp_matches(content, '[^\s\pZ]') THEN 'blank-content'
            WHEN strlen(content) > $max_content_bytes
                OR greatest(strlen(metadata), strlen(attributes), strlen(bookkeeping)) > $max_details_bytes THEN 'too-long'
        END AS refused,
        has_embedding AND embedding IS NULL AS unusable_vector
    FROM timed
), finished AS (
    SELECT *, embedding IS NOT NULL AS has_vector, to_json([project, metadata, attributes])::VARCHAR AS details FROM bounded
)
SELECT {columns}
FROM finished
