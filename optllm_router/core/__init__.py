"""The pure core: arrays and records in, arrays and records out."""
