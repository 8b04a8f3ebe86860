"""Pure functions over batches: cleaning, quantisation, fingerprints, summaries, times."""
