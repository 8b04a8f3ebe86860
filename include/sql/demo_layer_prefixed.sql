-- The tables of a client from 0.13 to 0.19.11 (collection `default`), without those of demo_layer_legacy.
-- No parameters, no result. A newer client keeps them: run this before demo_layer_v2.

CREATE TABLE IF NOT EXISTS default_conversations (
    id VARCHAR PRIMARY KEY, "content" VARCHAR NOT NULL, metadata JSON, created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL, embedding FLOAT[384], fingerprint BLOB, subcategory VARCHAR
);
CREATE TABLE IF NOT EXISTS default_reflections (
    id VARCHAR PRIMARY KEY, conversation_id VARCHAR, "content" VARCHAR NOT NULL, tags VARCHAR[], metadata JSON,
    created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL, embedding FLOAT[384],
    insight_type VARCHAR DEFAULT('general'), usage_count INTEGER DEFAULT(0), last_used_at TIMESTAMP,
    confidence_score FLOAT DEFAULT(0.5), fingerprint BLOB, subcategory VARCHAR, FOREIGN KEY (conversation_id)
    REFERENCES default_conversations(id)
);
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
CREATE TABLE IF NOT EXISTS content_fingerprints (
    id VARCHAR PRIMARY KEY, content_type VARCHAR NOT NULL, fingerprint BLOB NOT NULL,
    content_id VARCHAR NOT NULL, collection_name VARCHAR NOT NULL,
    created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), UNIQUE(content_type, content_id, collection_name)
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
    effective BOOLEAN DEFAULT(CAST('t' AS BOOLEAN))
);
CREATE TABLE IF NOT EXISTS usage_metrics_summary (
    id VARCHAR PRIMARY KEY, total_interactions INTEGER DEFAULT(0), click_through_rate FLOAT DEFAULT(0.0),
    avg_dwell_time_ms FLOAT DEFAULT(0.0), avg_position_clicked FLOAT DEFAULT(0.0), type_preference JSON,
    success_threshold FLOAT DEFAULT(0.7), last_updated TIMESTAMP DEFAULT(CURRENT_TIMESTAMP)
);

CREATE INDEX IF NOT EXISTS idx_conversations_subcategory ON default_conversations(subcategory);
CREATE INDEX IF NOT EXISTS idx_default_conv_created ON default_conversations(created_at);
CREATE INDEX IF NOT EXISTS idx_default_refl_created ON default_reflections(created_at);
CREATE INDEX IF NOT EXISTS idx_default_refl_insight_type ON default_reflections(insight_type);
CREATE INDEX IF NOT EXISTS idx_default_refl_last_used ON default_reflections(last_used_at);
CREATE INDEX IF NOT EXISTS idx_default_refl_usage_count ON default_reflections(usage_count);
CREATE INDEX IF NOT EXISTS idx_reflections_subcategory ON default_reflections(subcategory);
CREATE INDEX IF NOT EXISTS idx_archived_subcategories_archived_at ON archived_subcategories(archived_at);
CREATE INDEX IF NOT EXISTS idx_archived_subcategories_parent ON archived_subcategories(parent_category);
CREATE INDEX IF NOT EXISTS idx_evolution_snapshots_category ON category_evolution_snapshots(category);
CREATE INDEX IF NOT EXISTS idx_evolution_snapshots_timestamp ON category_evolution_snapshots("timestamp");
CREATE INDEX IF NOT EXISTS idx_fingerprints_collection ON content_fingerprints(collection_name);
CREATE INDEX IF NOT EXISTS idx_fingerprints_type ON content_fingerprints(content_type);
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
