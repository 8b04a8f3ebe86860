-- Records of one shard that break conservation, one row for each breach.
-- Params: none. Needs the relations
--   listed(system_id, source_table, record_id, content_sha256, created_at)          what the key files list
--   placed(the same columns, tier, unarchived)                                      what hot, warm and cold hold; unarchived =
--                                                                                   went to warm while the archive was off
--   archived(system_id, source_table, record_id, content_sha256)                    what the archive holds
-- Result: problem, system_id, source_table, record_id. Order: problem, then key.
--   missing            listed, in no tier
--   unlisted           in a tier, not listed
--   doubled            in tiers more than once, or listed more than once
--   digest_mismatch    in a tier with another content digest than listed
--   time_mismatch      in a tier with another created_at than listed
--   archive_missing    in warm or cold, not in the archive with the same content digest, although that was on
--   archive_unneeded   in the archive, neither in warm nor in cold; or there more than once
SELECT 'missing' AS problem, system_id, source_table, record_id
FROM listed ANTI JOIN placed USING (system_id, source_table, record_id)
UNION ALL
SELECT DISTINCT 'unlisted', system_id, source_table, record_id
FROM placed ANTI JOIN listed USING (system_id, source_table, record_id)
UNION ALL
SELECT 'doubled', system_id, source_table, record_id
FROM placed GROUP BY system_id, source_table, record_id HAVING count(*) > 1
UNION ALL
SELECT 'doubled', system_id, source_table, record_id
FROM listed GROUP BY system_id, source_table, record_id HAVING count(*) > 1
UNION ALL
SELECT DISTINCT 'digest_mismatch', system_id, source_table, record_id
FROM placed JOIN listed USING (system_id, source_table, record_id)
WHERE placed.content_sha256 <> listed.content_sha256
UNION ALL
SELECT DISTINCT 'time_mismatch', system_id, source_table, record_id
FROM placed JOIN listed USING (system_id, source_table, record_id)
WHERE placed.created_at <> listed.created_at
UNION ALL
SELECT DISTINCT 'archive_missing', system_id, source_table, record_id
FROM placed ANTI JOIN archived USING (system_id, source_table, record_id, content_sha256)
WHERE tier <> 'hot' AND NOT unarchived
UNION ALL
SELECT DISTINCT 'archive_unneeded', system_id, source_table, record_id
FROM archived ANTI JOIN (FROM placed WHERE tier <> 'hot') USING (system_id, source_table, record_id)
UNION ALL
SELECT 'archive_unneeded', system_id, source_table, record_id
FROM archived GROUP BY system_id, source_table, record_id HAVING count(*) > 1
ORDER BY ALL;
