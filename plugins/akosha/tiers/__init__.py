"""Moves between tiers: plan, stage, verify, commit."""
