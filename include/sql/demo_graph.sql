-- The two tables and the indexes of a knowledge_graph.duckdb.
-- No parameters, no result.

CREATE TABLE IF NOT EXISTS kg_entities (
    id VARCHAR PRIMARY KEY, "name" VARCHAR NOT NULL, entity_type VARCHAR NOT NULL, observations VARCHAR[],
    properties JSON, created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    updated_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), metadata JSON, embedding FLOAT[384]
);
CREATE TABLE IF NOT EXISTS kg_relationships (
    id VARCHAR PRIMARY KEY, from_entity VARCHAR NOT NULL, to_entity VARCHAR NOT NULL,
    relation_type VARCHAR NOT NULL, properties JSON, created_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP),
    updated_at TIMESTAMP DEFAULT(CURRENT_TIMESTAMP), metadata JSON
);

CREATE INDEX IF NOT EXISTS idx_entities_name ON kg_entities("name");
CREATE INDEX IF NOT EXISTS idx_entities_type ON kg_entities(entity_type);
CREATE INDEX IF NOT EXISTS idx_relationships_from ON kg_relationships(from_entity);
CREATE INDEX IF NOT EXISTS idx_relationships_to ON kg_relationships(to_entity);
CREATE INDEX IF NOT EXISTS idx_relationships_type ON kg_relationships(relation_type);
