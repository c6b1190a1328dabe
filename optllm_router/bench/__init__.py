"""Evidence: routers and baselines on recorded outcomes, under one protocol (`optllm evaluate`)."""
