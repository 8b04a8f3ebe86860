-- Every key of some uploads beside the live key it meets, and every live key of their systems that they lack.
-- Needs: uploads(upload, manifest, newest): number of each, the time of its manifest, that of its system's newest upload applied;
--        arrived(upload, position, source_table, record_id, content_sha256, details_sha256, has_vector, created_at, rank,
--        bookkeeping); live = the systems' key files, with rank in place of time_evidence: 0 is the best evidence.
-- Params: $ambiguous whether unrelated machines share these system ids.
-- Result: the columns of both sides, live ones with the suffix _live, NULL where that side is missing; those of uploads; base_id = the id as
--         the client wrote it; wins = whether the upload's revision is the newer one. Order: none.
-- {base_id}: record_id without the digest that upsert_named appended. {once}: for an ambiguous system, a clause that takes a
--   text once that came under a name with and one without its digest.
-- Two rows meet under one key; under an ambiguous system only if they hold the same text, else they are two records, of
-- which all but the one seen first are named base_id~digest. effective = the newest upload that held the live key. Of two
-- uploads made at the same instant the greater digests win: any rule would do that does not depend on their order.
WITH incoming AS (
    SELECT *, CASE WHEN $ambiguous THEN {base_id} ELSE record_id END AS base_id,
        CASE WHEN $ambiguous THEN content_sha256 ELSE ''::BLOB END AS text_key
    FROM arrived
    {once}
), known AS (
    SELECT *, CASE WHEN $ambiguous THEN {base_id} ELSE record_id END AS base_id,
        CASE WHEN $ambiguous THEN content_sha256 ELSE ''::BLOB END AS text_key
    FROM live
)
SELECT
    u.upload, u.manifest, u.newest,
    i.position,
    coalesce(i.source_table, k.source_table) AS source_table,
    coalesce(i.base_id, k.base_id) AS base_id,
    k.record_id AS record_id_live,
    i.content_xxh128, k.content_xxh128 AS content_xxh128_live,
    i.content_sha256, k.content_sha256 AS content_sha256_live,
    i.details_sha256, k.details_sha256 AS details_sha256_live,
    i.has_vector, k.has_vector AS has_vector_live,
    i.created_at, k.created_at AS created_at_live,
    i.rank, k.rank AS rank_live,
    i.bookkeeping, k.bookkeeping AS bookkeeping_live,
    k.time_manifest, k.first_manifest, k.applied_manifest, k.in_newest,
    CASE WHEN k.in_newest THEN u.newest ELSE k.applied_manifest END AS effective,
    k.record_id IS NULL
        OR u.manifest > effective
        OR (u.manifest = effective AND (i.content_sha256, i.details_sha256, i.bookkeeping)
            > (k.content_sha256, k.details_sha256, k.bookkeeping)) AS wins
FROM incoming AS i
FULL JOIN known AS k
    ON i.upload = k.upload AND i.source_table = k.source_table AND i.base_id = k.base_id AND i.text_key = k.text_key
JOIN uploads AS u ON u.upload = coalesce(i.upload, k.upload)
