"""The pinned model: load, check, encode, cache."""
