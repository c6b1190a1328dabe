"""Routers inside other frameworks: thin adapters, one module and one extra each.

`langchain`: `ChatOptLLM`, a LangChain chat model (`pip install 'optllm-router[langchain]'`).

Nothing is imported here: each module needs the framework that it is for.
"""
