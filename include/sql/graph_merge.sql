-- The knowledge graph of a system after an upload: the union of what is live and what came, each key once.
-- Needs: live = the system's graph (akosha.lake.graph_schema.GRAPH), incoming = the upload's (the same columns and
--        list_sha256: for an observation the content digest of the entity in whose list it stands),
--        ranks(time_evidence, rank): 0 is the best evidence.
-- Params: $ambiguous whether unrelated machines share this system id.
-- Result: the columns of GRAPH. Order: kind, id, content_sha256.
-- Every value is a maximum, a minimum or that of the greatest row, so that no order of uploads can show:
--   content        of the newest manifest, the greatest digest among equals
--   created_at     by the best evidence, the earliest manifest among equals
--   first_manifest, last_manifest   the earliest and the latest that held it
--   position       place in the entity's newest list, NULL = no longer there
-- Ambiguous: another identity under one client's id is another row, named id~<8 hex of its identity>. The identity seen
-- first keeps the bare id, unless that id itself reads like such a name; equal 8 hex are written out as 64.
WITH gathered AS (
    SELECT l.*, CASE WHEN l.position IS NOT NULL THEN e.content_sha256 END AS list_sha256
    FROM live AS l
    LEFT JOIN live AS e ON l.kind = 'observation' AND e.kind = 'entity' AND e.id = l.id
    UNION ALL BY NAME
    SELECT * FROM incoming
),
keyed AS (
    SELECT
        g.*,
        r.rank,
        CASE WHEN $ambiguous THEN g.client_id ELSE g.id END AS key_id,
        CASE WHEN $ambiguous THEN g.identity_sha256 ELSE ''::BLOB END AS key_identity
    FROM gathered AS g
    LEFT JOIN ranks AS r USING (time_evidence)
),
things AS (
    SELECT * REPLACE (
        min(first_manifest) OVER whole AS first_manifest,
        first_value(created_at) OVER timed AS created_at,
        first_value(time_evidence) OVER timed AS time_evidence,
        first_value(time_manifest) OVER timed AS time_manifest
    )
    FROM keyed
    WHERE kind <> 'observation'
    WINDOW
        whole AS (PARTITION BY kind, key_id, key_identity),
        timed AS (PARTITION BY kind, key_id, key_identity ORDER BY rank, time_manifest, created_at)
    QUALIFY row_number() OVER (
        PARTITION BY kind, key_id, key_identity
        ORDER BY last_manifest DESC, content_sha256 DESC, updated_at DESC NULLS LAST, provenance DESC
    ) = 1
),
counted AS (
    SELECT
        *,
        lower(hex(identity_sha256)) AS identity,
        row_number() OVER (PARTITION BY kind, client_id ORDER BY first_manifest, identity_sha256) AS place,
        count(*) OVER (PARTITION BY kind, client_id, left(lower(hex(identity_sha256)), 8)) AS alike
    FROM things
),
named AS (
    SELECT * REPLACE (
        CASE
            WHEN NOT $ambiguous THEN id
            WHEN place = 1 AND NOT regexp_matches(client_id, '~([0-9a-f]{8}|[0-9a-f]{64})$') THEN client_id
            WHEN alike = 1 THEN client_id || '~' || left(identity, 8)
            ELSE client_id || '~' || identity
        END AS id
    )
    FROM counted
),
notes AS (
    SELECT
        'observation' AS kind,
        any_value(e.id) AS id,
        any_value(e.client_id) AS client_id,
        any_value(e.identity_sha256) AS identity_sha256,
        o.content_sha256,
        any_value(o.text) AS text,
        min(o.position) FILTER (WHERE o.list_sha256 = e.content_sha256) AS position,
        min(o.first_manifest) AS first_manifest,
        max(o.last_manifest) AS last_manifest,
        max({'at': o.last_manifest, 'of': o.provenance})['of'] AS provenance
    FROM keyed AS o
    JOIN named AS e ON e.kind = 'entity' AND e.key_id = o.key_id AND e.key_identity = o.key_identity
    WHERE o.kind = 'observation'
    GROUP BY o.key_id, o.key_identity, o.content_sha256
),
merged AS (
    SELECT * EXCLUDE (list_sha256, rank, key_id, key_identity, identity, place, alike) FROM named
    UNION ALL BY NAME
    SELECT * FROM notes
)
SELECT {columns}
FROM merged
ORDER BY kind, id, content_sha256
