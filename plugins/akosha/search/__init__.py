"""Exact search over all shards."""
