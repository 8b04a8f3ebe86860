-- What one upload changes about the keys of its system.
-- Needs: incoming(position, source_table, record_id, content_sha256, created_at, time_evidence, bookkeeping),
--        live = the system's key file, ranks(time_evidence, rank): 0 is the best evidence.
-- Params: $manifest time of the upload's manifest; $ambiguous whether unrelated machines share this system id.
-- Result: one row for each distinct key of the upload, see the last SELECT. Order: position.
-- A key that repeats inside one upload is taken once, the row written last. Under an ambiguous system another text
-- under a live key becomes a record of its own, record_id~<first 8 hex of the digest>.
WITH named AS (
    SELECT
        i.* REPLACE (
            CASE
                WHEN $ambiguous AND l.content_sha256 <> i.content_sha256
                THEN i.record_id || '~' || left(lower(hex(i.content_sha256)), 8)
                ELSE i.record_id
            END AS record_id
        )
    FROM incoming AS i
    LEFT JOIN live AS l USING (source_table, record_id)
),
once AS (
    SELECT * FROM named
    QUALIFY row_number() OVER (PARTITION BY source_table, record_id ORDER BY position DESC) = 1
),
joined AS (
    SELECT
        o.position,
        o.source_table,
        o.record_id,
        l.record_id IS NULL AS is_new,
        coalesce($manifest > l.applied_manifest, true) AS newer,
        l.content_sha256 IS NOT NULL AND l.content_sha256 <> o.content_sha256 AS differs,
        coalesce(
            ri.rank < rl.rank OR (ri.rank = rl.rank AND $manifest < l.time_manifest),
            true
        ) AS better_time,
        o.content_sha256 AS content_in,
        l.content_sha256 AS content_live,
        o.created_at AS created_in,
        l.created_at AS created_live,
        o.time_evidence AS evidence_in,
        l.time_evidence AS evidence_live,
        l.time_manifest AS time_manifest_live,
        l.applied_manifest AS applied_live,
        o.bookkeeping AS bookkeeping_in,
        l.bookkeeping AS bookkeeping_live
    FROM once AS o
    LEFT JOIN live AS l USING (source_table, record_id)
    LEFT JOIN ranks AS ri ON ri.time_evidence = o.time_evidence
    LEFT JOIN ranks AS rl ON rl.time_evidence = l.time_evidence
)
SELECT
    position,
    source_table,
    record_id,
    is_new,
    NOT is_new AND newer AND differs AS is_changed,
    NOT is_new AND NOT newer AND differs AS is_older,
    NOT is_new AND better_time AND (created_in <> created_live OR evidence_in <> evidence_live) AS is_retimed,
    created_live,
    CASE WHEN newer THEN content_in ELSE content_live END AS content_sha256,
    CASE WHEN better_time THEN created_in ELSE created_live END AS created_at,
    CASE WHEN better_time THEN evidence_in ELSE evidence_live END AS time_evidence,
    CASE WHEN better_time THEN $manifest ELSE time_manifest_live END AS time_manifest,
    CASE WHEN newer THEN $manifest ELSE applied_live END AS applied_manifest,
    CASE WHEN newer THEN bookkeeping_in ELSE bookkeeping_live END AS bookkeeping,
    is_new
        OR newer
        OR (better_time AND (created_in <> created_live OR evidence_in <> evidence_live
                             OR $manifest <> time_manifest_live)) AS key_changes
FROM joined
ORDER BY position;
