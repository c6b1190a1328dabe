"""The Router. `router` is its face, `engine` what it is composed of and how long it lives.

`signatures` holds litellm's parameter names, `housekeeping` what happens in the background,
`refitting` when a refit is due; `probes`, `importing` and `feedback` take labels in; `reports` and
`checks` hold what a router tells about itself.
"""

from optllm_router.router.router import Router

__all__ = ["Router"]
