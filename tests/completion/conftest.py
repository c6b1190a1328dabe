"""What the client's tests share: LiteLLM kept local, and candidates on a loopback server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from optllm_router.completion.litellm_client import LiteLLMClient
from optllm_router.records import Candidate
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply, in_order

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(scope="session")
def client() -> LiteLLMClient:
    client = LiteLLMClient()
    client.warm_up()
    return client


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeOpenAIServer]]:
    """Start a fake server that gives these replies in order."""
    servers = []

    def start(*replies: Reply) -> FakeOpenAIServer:
        servers.append(FakeOpenAIServer(in_order(*replies)).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def candidate_at(client: LiteLLMClient) -> Callable[..., Candidate]:
    """Describe a candidate that lives on a fake server and is not retried."""

    def describe(server: FakeOpenAIServer, **settings: object) -> Candidate:
        arguments = {"api_key": "sk-test", "max_retries": 0, **settings.pop("arguments", {})}
        return client.candidate(
            "openai/house-blend", {"api_base": server.url, "arguments": arguments, **settings}
        )

    return describe
