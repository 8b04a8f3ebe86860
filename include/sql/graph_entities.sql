-- The entities of an uploaded knowledge graph as uniform rows (akosha.uploads.graph_reader.ENTITIES).
-- {source}: a SELECT over kg_entities that yields every column named below, already cast; a column that the client's
--   version lacks is a typed NULL. `has_embedding` tells an unusable vector from a missing one.
-- refused: why a row cannot become an entity (no-id, long-id, no-name, too-long), else NULL. What is too long is not
--   carried along: names and types over 64 KiB, properties, metadata and observations over 4 MiB, ids over 1,024 bytes.
-- created_local, updated_local: naive wall-clock time of the client. Outside 2000-2100 = NULL.
-- Order: as stored.
WITH listed AS (
    SELECT
        * REPLACE (list_filter(observations, lambda item: item IS NOT NULL AND item <> '') AS observations)
    FROM ({source})
),
measured AS (
    SELECT
        *,
        coalesce(list_sum(list_transform(observations, lambda item: strlen(item))), 0) AS observed,
        greatest(coalesce(strlen(name), 0), coalesce(strlen(entity_type), 0)) AS named,
        greatest(coalesce(strlen(properties), 0), coalesce(strlen(metadata), 0)) AS described
    FROM listed
)
SELECT
    CASE WHEN strlen(id) <= 1024 THEN id ELSE left(id, 64) END AS client_id,
    CASE WHEN strlen(name) <= 65536 THEN name END AS name,
    CASE WHEN strlen(entity_type) <= 65536 THEN entity_type END AS type,
    CASE WHEN observed <= 4194304 THEN observations END AS observations,
    CASE WHEN strlen(properties) <= 4194304 THEN properties END AS properties,
    CASE WHEN strlen(metadata) <= 4194304 THEN metadata END AS metadata,
    embedding,
    CASE WHEN created_at BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '2100-01-01' THEN created_at END AS created_local,
    CASE WHEN updated_at BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '2100-01-01' THEN updated_at END AS updated_local,
    CASE
        WHEN id IS NULL OR id = '' THEN 'no-id'
        WHEN strlen(id) > 1024 THEN 'long-id'
        WHEN name IS NULL OR name = '' THEN 'no-name'
        WHEN observed > 4194304 OR named > 65536 OR described > 4194304 THEN 'too-long'
    END AS refused,
    has_embedding AND embedding IS NULL AS unusable_vector
FROM measured
