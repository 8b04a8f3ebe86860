-- What an upload changed about the knowledge graph of its system.
-- Needs: live, after = the graph before and after (akosha.lake.graph_schema.GRAPH).
-- Result: kind, rows after; is_new; is_changed (other content under a live id); dangling (relations of which an end is no
--   entity of the graph). Order: kind.
WITH entities AS (
    SELECT DISTINCT client_id FROM after WHERE kind = 'entity'
)
SELECT
    a.kind,
    count(*) AS total,
    count(*) FILTER (WHERE l.id IS NULL) AS is_new,
    count(*) FILTER (WHERE l.content_sha256 <> a.content_sha256) AS is_changed,
    count(*) FILTER (
        WHERE a.kind = 'relation'
        AND (a.from_entity NOT IN (FROM entities) OR a.to_entity NOT IN (FROM entities))
    ) AS dangling
FROM after AS a
LEFT JOIN live AS l
    ON l.kind = a.kind AND l.id = a.id
    AND (a.kind <> 'observation' OR l.content_sha256 = a.content_sha256)
GROUP BY a.kind
ORDER BY a.kind
