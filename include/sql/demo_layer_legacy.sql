-- What every client adds to reflection.duckdb for session checkpoints: conversations, reflections and their companions.
-- No parameters, no result. Tables that are there already are kept.

CREATE TABLE IF NOT EXISTS access_log_v2 (
    reflection_id VARCHAR PRIMARY KEY, access_timestamp TIMESTAMP, access_count INTEGER DEFAULT(0)
);
CREATE TABLE IF NOT EXISTS code_graphs (
    id VARCHAR PRIMARY KEY, repo_path VARCHAR NOT NULL, commit_hash VARCHAR NOT NULL,
    indexed_at TIMESTAMP NOT NULL, nodes_count INTEGER NOT NULL, graph_data JSON NOT NULL,
    "timestamp" TIMESTAMP DEFAULT(now()), metadata JSON
);
CREATE TABLE IF NOT EXISTS conversations (
    id VARCHAR PRIMARY KEY, "content" VARCHAR NOT NULL, embedding FLOAT[384], project VARCHAR,
    "timestamp" TIMESTAMP, metadata JSON
);
CREATE TABLE IF NOT EXISTS project_dependencies (
    id VARCHAR PRIMARY KEY, source_project VARCHAR NOT NULL, target_project VARCHAR NOT NULL,
    dependency_type VARCHAR NOT NULL, description VARCHAR, created_at TIMESTAMP DEFAULT(now()), metadata JSON,
    UNIQUE(source_project, target_project, dependency_type)
);
CREATE TABLE IF NOT EXISTS project_groups (
    id VARCHAR PRIMARY KEY, "name" VARCHAR NOT NULL, description VARCHAR, projects VARCHAR[] NOT NULL,
    created_at TIMESTAMP DEFAULT(now()), metadata JSON
);
CREATE TABLE IF NOT EXISTS reflections (
    id VARCHAR PRIMARY KEY, "content" VARCHAR NOT NULL, embedding FLOAT[384], project VARCHAR, tags VARCHAR[],
    "timestamp" TIMESTAMP, metadata JSON
);
CREATE TABLE IF NOT EXISTS reflection_tags (
    reflection_id VARCHAR, tag VARCHAR, PRIMARY KEY(reflection_id, tag)
);
CREATE TABLE IF NOT EXISTS session_links (
    id VARCHAR PRIMARY KEY, source_session_id VARCHAR NOT NULL, target_session_id VARCHAR NOT NULL,
    link_type VARCHAR NOT NULL, created_at TIMESTAMP DEFAULT(now()), metadata JSON
);

CREATE INDEX IF NOT EXISTS idx_code_graphs_commit_hash ON code_graphs(commit_hash);
CREATE INDEX IF NOT EXISTS idx_code_graphs_indexed_at ON code_graphs(indexed_at);
CREATE INDEX IF NOT EXISTS idx_code_graphs_repo_path ON code_graphs(repo_path);
CREATE INDEX IF NOT EXISTS idx_conversations_project ON conversations(project);
CREATE INDEX IF NOT EXISTS idx_reflections_project ON reflections(project);
CREATE INDEX IF NOT EXISTS idx_reflections_timestamp ON reflections("timestamp");
CREATE INDEX IF NOT EXISTS idx_reflection_tags_tag ON reflection_tags(tag);
