"""Runs decisions: one call (`calls`), its stream (`streams`), a batch under a budget (`batch`)."""
