"""The Router. `router` is its face, `engine` what it is composed of and how long it lives.

`signatures` holds litellm's parameter names, `housekeeping` what happens in the background,
`reports` what a router tells about itself.
"""

from optllm_router.router.router import Router

__all__ = ["Router"]
