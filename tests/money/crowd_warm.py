"""What the processes of a crowd have loaded before they begin; see `crowd_shapes`.

Modules only: LiteLLM loads most of them with its first call, which would start threads.
"""

# ruff: noqa: F401

import os

os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
}

import httpcore
import litellm.llms.openai.openai
import litellm.proxy._types
import openai.resources.chat.completions

import optllm_router.router.engine
import optllm_router.store.sql
from optllm_router.completion.litellm_client import LiteLLMClient

LiteLLMClient().warm_up()
