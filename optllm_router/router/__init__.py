"""The Router: composition and lifetime. `router` is the object, `signatures` litellm's names,
`housekeeping` what it does in the background, `reports` what it tells."""

from optllm_router.router.router import Router

__all__ = ["Router"]
