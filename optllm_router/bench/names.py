"""What the routers of an evaluation are called; light, so that the command line can know it."""

OURS = "ours"
ABLATIONS = ("unshrunk", "alike")
"""Ours with all of the columns' differences on a query, and with none of them."""
ROUTER_NAMES = (
    OURS,
    *ABLATIONS,
    "optllm",
    "metallm",
    "forest",
    "knn",
    "ridge",
    "zero",
    "random",
    "oracle",
)
SLOW_ROUTERS = ("optllm", "forest")
"""Routers that fit forests, which takes minutes where the others take seconds."""
FAST_ROUTERS = tuple(name for name in ROUTER_NAMES if name not in (*SLOW_ROUTERS, *ABLATIONS))
