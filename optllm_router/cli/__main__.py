"""`python -m optllm_router.cli` is `optllm`."""

from optllm_router.cli.entry import main

main()
