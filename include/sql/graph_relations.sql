-- The relations of an uploaded knowledge graph as uniform rows (akosha.uploads.graph_reader.RELATIONS).
-- {source}: a SELECT over kg_relationships that yields every column named below, already cast; a column that the
--   client's version lacks is a typed NULL.
-- refused: why a row cannot become a relation (no-id, long-id, no-end, too-long), else NULL. What is too long is not
--   carried along: types over 64 KiB, properties and metadata over 4 MiB, ids over 1,024 bytes.
-- An end that is no entity of the file is no reason: clients keep no foreign keys.
-- created_local, updated_local: naive wall-clock time of the client. Outside 2000-2100 = NULL.
-- Order: as stored.
WITH measured AS (
    SELECT
        *,
        greatest(coalesce(strlen(id), 0), coalesce(strlen(from_entity), 0), coalesce(strlen(to_entity), 0)) AS widest_id,
        coalesce(strlen(relation_type), 0) AS named,
        greatest(coalesce(strlen(properties), 0), coalesce(strlen(metadata), 0)) AS described
    FROM ({source})
)
SELECT
    CASE WHEN strlen(id) <= 1024 THEN id ELSE left(id, 64) END AS client_id,
    CASE WHEN widest_id <= 1024 THEN from_entity END AS from_entity,
    CASE WHEN widest_id <= 1024 THEN to_entity END AS to_entity,
    CASE WHEN strlen(relation_type) <= 65536 THEN relation_type END AS type,
    CASE WHEN strlen(properties) <= 4194304 THEN properties END AS properties,
    CASE WHEN strlen(metadata) <= 4194304 THEN metadata END AS metadata,
    CASE WHEN created_at BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '2100-01-01' THEN created_at END AS created_local,
    CASE WHEN updated_at BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '2100-01-01' THEN updated_at END AS updated_local,
    CASE
        WHEN id IS NULL OR id = '' THEN 'no-id'
        WHEN widest_id > 1024 THEN 'long-id'
        WHEN coalesce(from_entity, '') = '' OR coalesce(to_entity, '') = '' THEN 'no-end'
        WHEN named > 65536 OR described > 4194304 THEN 'too-long'
    END AS refused
FROM measured
