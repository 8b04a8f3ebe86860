"""Proofs: recall, conservation, fsck, Great Expectations."""
