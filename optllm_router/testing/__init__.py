"""Public aids for tests: a scripted client, a fake OpenAI server, the store's suite."""
