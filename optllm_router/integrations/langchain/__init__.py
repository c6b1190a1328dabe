"""A LangChain chat model whose answers come through a Router.

    llm = ChatOptLLM(router=router, task="triage")
    message = llm.invoke("…")
    router.feedback(message.response_metadata["optllm"]["decision_id"], score=1.0)

It needs `langchain-core` only and does nothing but translate: messages and tools on the way in,
messages, chunks and token counts on the way out. All routing, money and logging is the Router's.
`chat_model` is the class, `messages` translates answers, `structured` tools and schemas.
"""

from __future__ import annotations

from optllm_router.errors import ConfigError

try:
    from optllm_router.integrations.langchain.chat_model import ChatOptLLM
except ImportError as error:
    if not str(error.name).startswith("langchain_core"):
        raise
    raise ConfigError(
        f"`optllm_router.integrations.langchain` needs langchain-core 1.2 or newer ({error}): "
        "pip install 'optllm-router[langchain]'"
    ) from error

__all__ = ["ChatOptLLM"]
