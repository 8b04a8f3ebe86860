-- One source table of an upload as uniform rows.
-- {source}: a SELECT over the table that yields every column named below, already cast, and the row's number; a column that
--   the client's version lacks is a typed NULL. `has_embedding` tells an unusable vector from a missing one.
-- {columns}: which of the columns of the last WITH are wanted; what is not wanted is not computed.
-- Params, from the declared quality rules: $max_id_bytes, $max_content_bytes, $max_details_bytes, $earliest, $latest.
-- refused: why a row cannot become a record (no-id, long-id, no-content, blank-content, too-long), else NULL. What is too
--   long is not carried along.
-- attributes, bookkeeping: JSON objects, keys sorted, only columns that are not NULL. bookkeeping holds what changes
--   between snapshots without being a new revision; details is everything else beside the text, for its digest.
-- local_time: naive wall-clock time of the client; extracted_at, checkpoint_at: UTC. Outside the range = NULL.
-- Order: as stored.
WITH parsed AS (
    SELECT
        *,
        CASE WHEN json_valid(metadata) THEN metadata END AS readable,
        '{' || concat_ws(
            ',',
            CASE WHEN category IS NOT NULL THEN '"category":' || to_json(category) END,
            CASE WHEN causal_parent_id IS NOT NULL THEN '"causal_parent_id":' || to_json(causal_parent_id) END,
            CASE WHEN conversation_id IS NOT NULL THEN '"conversation_id":' || to_json(conversation_id) END,
            CASE WHEN insight_type IS NOT NULL THEN '"insight_type":' || to_json(insight_type) END,
            CASE WHEN namespace IS NOT NULL THEN '"namespace":' || to_json(namespace) END,
            CASE WHEN reasoning IS NOT NULL THEN '"reasoning":' || to_json(reasoning) END,
            CASE WHEN related_entities IS NOT NULL THEN '"related_entities":' || to_json(related_entities) END,
            CASE WHEN session_id IS NOT NULL THEN '"session_id":' || to_json(session_id) END,
            CASE WHEN source_artifact_uri IS NOT NULL THEN '"source_artifact_uri":' || to_json(source_artifact_uri) END,
            CASE WHEN source_session_id IS NOT NULL THEN '"source_session_id":' || to_json(source_session_id) END,
            CASE WHEN source_type IS NOT NULL THEN '"source_type":' || to_json(source_type) END,
            CASE WHEN tags IS NOT NULL THEN '"tags":' || to_json(tags) END,
            CASE WHEN turn_parent_id IS NOT NULL THEN '"turn_parent_id":' || to_json(turn_parent_id) END,
            CASE WHEN user_id IS NOT NULL THEN '"user_id":' || to_json(user_id) END
        ) || '}' AS attributes,
        '{' || concat_ws(
            ',',
            CASE WHEN access_count IS NOT NULL THEN '"access_count":' || to_json(access_count) END,
            CASE WHEN isfinite(confidence_score) THEN '"confidence_score":' || to_json(confidence_score) END,
            CASE WHEN isfinite(importance_score) THEN '"importance_score":' || to_json(importance_score) END,
            CASE WHEN last_accessed IS NOT NULL THEN '"last_accessed":' || to_json(last_accessed) END,
            CASE WHEN last_used_at IS NOT NULL THEN '"last_used_at":' || to_json(last_used_at) END,
            CASE WHEN memory_tier IS NOT NULL THEN '"memory_tier":' || to_json(memory_tier) END,
            CASE WHEN subcategory IS NOT NULL THEN '"subcategory":' || to_json(subcategory) END,
            CASE WHEN updated_at IS NOT NULL THEN '"updated_at":' || to_json(updated_at) END,
            CASE WHEN usage_count IS NOT NULL THEN '"usage_count":' || to_json(usage_count) END
        ) || '}' AS bookkeeping
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
