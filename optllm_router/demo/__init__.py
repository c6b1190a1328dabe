"""The demo: simulated LLMs, checkable tasks, and the whole loop run through the real Router."""
