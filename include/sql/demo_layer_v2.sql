-- The 20 tables and the indexes of a client from 0.19.12 on, as its reflection.duckdb declares them.
-- No parameters, no result. Tables that an older layer of the same file left behind are kept.

CREATE TABLE IF NOT EXISTS archived_subcategories (
    id VARCHAR PRIMARY KEY, parent_category VARCHAR NOT NULL, "name" VARCHAR NOT NULL, keywords VARCHAR[],
    centroid FLOAT[384], centroid_fingerprint BLOB, memory_count INTEGER DEFAULT(0),
    created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL, last_accessed_at TIMESTAMP NOT NULL,
    access_count INTEGER DEFAULT(0), archived_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    archive_reason VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS category_evolution_snapshots (
    id VARCHAR PRIMARY KEY, category VARCHAR NOT NULL, before_subcategory_count INTEGER NOT NULL,
    before_silhouette FLOAT, before_total_memories INTEGER NOT NULL, after_subcategory_count INTEGER NOT NULL,
    after_silhouette FLOAT, after_total_memories INTEGER NOT NULL, decayed_count INTEGER DEFAULT(0),
    archived_count INTEGER DEFAULT(0), bytes_freed INTEGER DEFAULT(0), evolution_duration_ms FLOAT NOT NULL,
    "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP)
);
CREATE TABLE IF NOT EXISTS causal_links (
    id VARCHAR PRIMARY KEY, from_id VARCHAR NOT NULL, to_id VARCHAR NOT NULL, link_type VARCHAR NOT NULL,
    evidence FLOAT NOT NULL, last_evidence_at TIMESTAMP DEFAULT(now()) NOT NULL, link_origin VARCHAR NOT NULL,
    created_at TIMESTAMP DEFAULT(now()) NOT NULL, depth INTEGER DEFAULT(1) NOT NULL,
    CHECK(((evidence > 0.0) AND (evidence <= 1.0))), CHECK((link_origin IN ('observed', 'inferred')))
);
CREATE TABLE IF NOT EXISTS content_fingerprints (
    id VARCHAR PRIMARY KEY, content_type VARCHAR NOT NULL, fingerprint BLOB NOT NULL,
    content_id VARCHAR NOT NULL, collection_name VARCHAR NOT NULL,
    created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), UNIQUE(content_type, content_id, collection_name)
);
CREATE TABLE IF NOT EXISTS conversations_v2 (
    id VARCHAR PRIMARY KEY, "content" VARCHAR NOT NULL, embedding FLOAT[384], category VARCHAR NOT NULL,
    subcategory VARCHAR, importance_score FLOAT DEFAULT(0.5), memory_tier VARCHAR DEFAULT('long_term'),
    access_count INTEGER DEFAULT(0), last_accessed TIMESTAMP, project VARCHAR,
    namespace VARCHAR DEFAULT('default'), "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), session_id VARCHAR,
    user_id VARCHAR DEFAULT('default'), searchable_content VARCHAR, reasoning VARCHAR, metadata VARCHAR,
    source_type VARCHAR, turn_parent_id VARCHAR, causal_parent_id VARCHAR, fingerprint BLOB, CHECK(((source_type
    IS NULL) OR (source_type IN ('claude_code', 'crackerjack', 'mahavishnu_workflow', 'manual', 'migration'))))
);
CREATE TABLE IF NOT EXISTS cross_repo_work_v2 (
    id VARCHAR PRIMARY KEY, conversation_id VARCHAR NOT NULL, repo_name VARCHAR NOT NULL,
    repo_path VARCHAR NOT NULL, repo_role VARCHAR, session_window_start TIMESTAMP WITH TIME ZONE NOT NULL,
    session_window_end TIMESTAMP WITH TIME ZONE NOT NULL, work_entries JSON NOT NULL,
    contributor_sources JSON DEFAULT('[]') NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT(now()) NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT(now()) NOT NULL
);
CREATE TABLE IF NOT EXISTS distilled_skills (
    id VARCHAR PRIMARY KEY, problem_pattern VARCHAR NOT NULL, suggested_approach VARCHAR NOT NULL,
    because VARCHAR NOT NULL, evidence_count INTEGER DEFAULT(0) NOT NULL, source_memory_ids VARCHAR,
    importance_score FLOAT NOT NULL, model VARCHAR NOT NULL, created_at TIMESTAMP DEFAULT(now()) NOT NULL,
    last_reinforced_at TIMESTAMP DEFAULT(now()) NOT NULL, CHECK(((importance_score >= 0.7) AND (importance_score
    <= 1.0)))
);
CREATE TABLE IF NOT EXISTS memory_provenance (
    id VARCHAR PRIMARY KEY, memory_id VARCHAR NOT NULL, source_type VARCHAR NOT NULL, source_ref VARCHAR,
    extracted_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP) NOT NULL, model VARCHAR
);
CREATE TABLE IF NOT EXISTS memory_subcategories (
    id VARCHAR PRIMARY KEY, parent_category VARCHAR NOT NULL, "name" VARCHAR NOT NULL, keywords VARCHAR[],
    centroid FLOAT[384], centroid_fingerprint BLOB, memory_count INTEGER DEFAULT(0),
    created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), updated_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    last_accessed_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), access_count INTEGER DEFAULT(0),
    UNIQUE(parent_category, "name")
);
CREATE TABLE IF NOT EXISTS query_cache_l2 (
    cache_key VARCHAR PRIMARY KEY, normalized_query VARCHAR NOT NULL, project VARCHAR, result_ids VARCHAR[],
    hit_count INTEGER DEFAULT(1), created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    last_accessed TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), ttl_seconds INTEGER DEFAULT(604800)
);
CREATE TABLE IF NOT EXISTS result_interactions (
    id VARCHAR PRIMARY KEY, query VARCHAR NOT NULL, result_id VARCHAR NOT NULL, result_type VARCHAR NOT NULL,
    "position" INTEGER NOT NULL, similarity_score FLOAT NOT NULL, clicked BOOLEAN NOT NULL,
    dwell_time_ms INTEGER, "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), session_id VARCHAR
);
CREATE TABLE IF NOT EXISTS rewritten_queries (
    id VARCHAR PRIMARY KEY, original_query VARCHAR NOT NULL, rewritten_query VARCHAR NOT NULL,
    llm_provider VARCHAR, confidence_score FLOAT, context_snapshot VARCHAR,
    created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), used_count INTEGER DEFAULT(1),
    effective BOOLEAN DEFAULT(true)
);
CREATE TABLE IF NOT EXISTS session_windows (
    id VARCHAR PRIMARY KEY, working_directory VARCHAR NOT NULL, project VARCHAR,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT(now()) NOT NULL, ended_at TIMESTAMP WITH TIME ZONE,
    session_metadata JSON DEFAULT('{}') NOT NULL
);
CREATE TABLE IF NOT EXISTS usage_metrics_summary (
    id VARCHAR PRIMARY KEY, total_interactions INTEGER DEFAULT(0), click_through_rate FLOAT DEFAULT(0.0),
    avg_dwell_time_ms FLOAT DEFAULT(0.0), avg_position_clicked FLOAT DEFAULT(0.0), type_preference JSON,
    success_threshold FLOAT DEFAULT(0.7), last_updated TIMESTAMP DEFAULT(CURRENT_TIMESTAMP)
);
CREATE TABLE IF NOT EXISTS user_models (
    peer_id VARCHAR, project_id VARCHAR, representation_text VARCHAR NOT NULL,
    last_updated TIMESTAMP DEFAULT(now()) NOT NULL, evidence_count INTEGER DEFAULT(0) NOT NULL,
    model VARCHAR NOT NULL, PRIMARY KEY(peer_id, project_id)
);
CREATE TABLE IF NOT EXISTS memory_access_log (
    id VARCHAR PRIMARY KEY, memory_id VARCHAR, access_type VARCHAR, query_text VARCHAR,
    "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), FOREIGN KEY (memory_id) REFERENCES conversations_v2(id)
);
CREATE TABLE IF NOT EXISTS memory_entities (
    id VARCHAR PRIMARY KEY, memory_id VARCHAR NOT NULL, entity_type VARCHAR NOT NULL,
    entity_value VARCHAR NOT NULL, confidence FLOAT DEFAULT(1.0),
    "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), FOREIGN KEY (memory_id) REFERENCES conversations_v2(id)
);
CREATE TABLE IF NOT EXISTS memory_promotions (
    id VARCHAR PRIMARY KEY, memory_id VARCHAR NOT NULL, from_tier VARCHAR NOT NULL, to_tier VARCHAR NOT NULL,
    reason VARCHAR, priority_score FLOAT, "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    FOREIGN KEY (memory_id) REFERENCES conversations_v2(id)
);
CREATE TABLE IF NOT EXISTS memory_relationships (
    id VARCHAR PRIMARY KEY, from_entity_id VARCHAR NOT NULL, to_entity_id VARCHAR NOT NULL,
    relationship_type VARCHAR NOT NULL, strength FLOAT DEFAULT(1.0),
    "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    FOREIGN KEY (from_entity_id) REFERENCES memory_entities(id),
    FOREIGN KEY (to_entity_id) REFERENCES memory_entities(id)
);
CREATE TABLE IF NOT EXISTS reflections_v2 (
    id VARCHAR PRIMARY KEY, conversation_id VARCHAR, "content" VARCHAR NOT NULL, embedding FLOAT[384],
    category VARCHAR DEFAULT('context') NOT NULL, subcategory VARCHAR, importance_score FLOAT DEFAULT(0.5),
    memory_tier VARCHAR DEFAULT('long_term'), tags VARCHAR[], related_entities VARCHAR[],
    namespace VARCHAR DEFAULT('default'), project VARCHAR, access_count INTEGER DEFAULT(0),
    last_accessed TIMESTAMP, "timestamp" TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), updated_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    metadata JSON, insight_type VARCHAR DEFAULT('general'), usage_count INTEGER DEFAULT(0),
    last_used_at TIMESTAMP, confidence_score FLOAT DEFAULT(0.5), fingerprint BLOB, FOREIGN KEY (conversation_id)
    REFERENCES conversations_v2(id)
);

CREATE INDEX IF NOT EXISTS idx_archived_subcategories_archived_at ON archived_subcategories(archived_at);
CREATE INDEX IF NOT EXISTS idx_archived_subcategories_parent ON archived_subcategories(parent_category);
CREATE INDEX IF NOT EXISTS idx_evolution_snapshots_category ON category_evolution_snapshots(category);
CREATE INDEX IF NOT EXISTS idx_evolution_snapshots_timestamp ON category_evolution_snapshots("timestamp");
CREATE INDEX IF NOT EXISTS idx_causal_from ON causal_links(from_id);
CREATE INDEX IF NOT EXISTS idx_causal_last_evidence ON causal_links(last_evidence_at);
CREATE INDEX IF NOT EXISTS idx_causal_to ON causal_links(to_id);
CREATE INDEX IF NOT EXISTS idx_fingerprints_collection ON content_fingerprints(collection_name);
CREATE INDEX IF NOT EXISTS idx_fingerprints_type ON content_fingerprints(content_type);
CREATE INDEX IF NOT EXISTS idx_conversations_access ON conversations_v2(last_accessed);
CREATE INDEX IF NOT EXISTS idx_conversations_category ON conversations_v2(category, namespace);
CREATE INDEX IF NOT EXISTS idx_conversations_fts ON conversations_v2(searchable_content);
CREATE INDEX IF NOT EXISTS idx_conversations_namespace ON conversations_v2(namespace, project);
CREATE INDEX IF NOT EXISTS idx_conversations_subcategory ON conversations_v2(subcategory);
CREATE INDEX IF NOT EXISTS idx_conversations_tier ON conversations_v2(memory_tier, importance_score);
CREATE INDEX IF NOT EXISTS idx_conversations_timestamp ON conversations_v2("timestamp");
CREATE INDEX IF NOT EXISTS idx_default_conv_created ON conversations_v2("timestamp");
CREATE INDEX IF NOT EXISTS idx_v2_source_type_project ON conversations_v2(source_type, project, "timestamp");
CREATE UNIQUE INDEX IF NOT EXISTS idx_cross_repo_work_v2_conv_repo ON cross_repo_work_v2(conversation_id, repo_name);
CREATE INDEX IF NOT EXISTS idx_distilled_importance ON distilled_skills(importance_score);
CREATE INDEX IF NOT EXISTS idx_distilled_last_reinforced ON distilled_skills(last_reinforced_at);
CREATE INDEX IF NOT EXISTS idx_provenance_extracted ON memory_provenance(extracted_at);
CREATE INDEX IF NOT EXISTS idx_provenance_memory ON memory_provenance(memory_id);
CREATE INDEX IF NOT EXISTS idx_subcategories_count ON memory_subcategories(memory_count);
CREATE INDEX IF NOT EXISTS idx_subcategories_parent ON memory_subcategories(parent_category);
CREATE INDEX IF NOT EXISTS idx_query_cache_l2_accessed ON query_cache_l2(last_accessed);
CREATE INDEX IF NOT EXISTS idx_query_cache_l2_project ON query_cache_l2(project);
CREATE INDEX IF NOT EXISTS idx_interactions_clicked ON result_interactions(clicked);
CREATE INDEX IF NOT EXISTS idx_interactions_query ON result_interactions(query);
CREATE INDEX IF NOT EXISTS idx_interactions_result_id ON result_interactions(result_id);
CREATE INDEX IF NOT EXISTS idx_interactions_timestamp ON result_interactions("timestamp");
CREATE INDEX IF NOT EXISTS idx_rewritten_queries_created ON rewritten_queries(created_at);
CREATE INDEX IF NOT EXISTS idx_rewritten_queries_effective ON rewritten_queries(effective);
CREATE INDEX IF NOT EXISTS idx_rewritten_queries_original ON rewritten_queries(original_query);
CREATE INDEX IF NOT EXISTS idx_user_models_project ON user_models(project_id, last_updated);
CREATE INDEX IF NOT EXISTS idx_access_log_memory ON memory_access_log(memory_id, "timestamp");
CREATE INDEX IF NOT EXISTS idx_entities_memory ON memory_entities(memory_id);
CREATE INDEX IF NOT EXISTS idx_entities_type ON memory_entities(entity_type, entity_value);
CREATE INDEX IF NOT EXISTS idx_relationships_from ON memory_relationships(from_entity_id);
CREATE INDEX IF NOT EXISTS idx_relationships_to ON memory_relationships(to_entity_id);
CREATE INDEX IF NOT EXISTS idx_default_refl_created ON reflections_v2("timestamp");
CREATE INDEX IF NOT EXISTS idx_default_refl_insight_type ON reflections_v2(insight_type);
CREATE INDEX IF NOT EXISTS idx_default_refl_last_used ON reflections_v2(last_used_at);
CREATE INDEX IF NOT EXISTS idx_default_refl_usage_count ON reflections_v2(usage_count);
CREATE INDEX IF NOT EXISTS idx_reflections_subcategory ON reflections_v2(subcategory);
