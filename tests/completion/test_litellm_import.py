"""LiteLLM is imported late, locally, and left as it was."""

import subprocess
import sys
import textwrap

DEAF = """
import socket, sys

def refuse(*args, **kwargs):
    print("LOOKED UP", args, flush=True)
    raise SystemExit(3)

socket.getaddrinfo = refuse
"""


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", DEAF + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), **environment},
    )
    assert (done.returncode, done.stdout[-2000:]) == (0, "ok\n"), done.stderr[-2000:]


def test_nothing_is_looked_up_and_a_users_switches_are_kept():
    run(
        """
        import os
        from optllm_router.completion import litellm_client
        client = litellm_client.LiteLLMClient()
        assert "litellm" not in sys.modules

        client.count_text("counted without litellm")
        assert "litellm" not in sys.modules

        client.warm_up()
        assert os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] == "false"
        assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"

        models = ["gpt-4o", "ollama/llama3", "huggingface/a/b", "github_copilot/gpt-4o", "openai/x",
                  "groq/llama-3.1-8b-instant", "replicate/meta/llama-2-7b", "no-such", "azure/mine"]
        for model in models:
            client.candidate(model)
        llama = client.candidate("groq/llama-3.1-8b-instant")
        hello = [{"role": "user", "content": "hello"}]
        list(client.complete(llama, {"messages": hello, "mock_response": "a b", "stream": True}))

        litellm_client.keep_stdout_clean()
        try:
            client.complete(client.candidate("no-such"), {"messages": []})
        except Exception as error:
            assert type(error).__name__ == "BadRequestError"
        print("ok")
        """,
        LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="false",
    )


def test_litellms_global_state_is_not_assigned():
    run("""
        import os
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm
        names = ["callbacks", "success_callback", "failure_callback", "cache", "drop_params",
                 "suppress_debug_info", "disable_hf_tokenizer_download", "max_budget"]
        before = {name: getattr(litellm, name) for name in names}

        from optllm_router.completion.litellm_client import LiteLLMClient
        client = LiteLLMClient()
        client.warm_up()
        hello = {"messages": [{"role": "user", "content": "hello"}], "mock_response": "x"}
        client.complete(client.candidate("gpt-4o-mini"), hello)

        assert before == {name: getattr(litellm, name) for name in names}
        assert "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS" not in os.environ
        print("ok")
    """)
