"""Versioned shards on an object store: layout, commits, files, keys, verification."""
