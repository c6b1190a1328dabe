"""A LangChain chain whose model is a Router: prompt | ChatOptLLM | parser.

Needs the extra: pip install 'optllm-router[langchain]'.

The LLMs here are SIMULATED, on this machine: no key, no network, no money. For real ones change
the two lines that are marked.
"""

import tempfile

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from optllm_router import Router, TargetAccuracy
from optllm_router.demo.providers import SimulatedProvider
from optllm_router.demo.tasks import make_queries
from optllm_router.integrations.langchain import ChatOptLLM

QUESTIONS = [query.text for query in make_queries(6, seed=6)]

with (
    tempfile.TemporaryDirectory() as folder,
    SimulatedProvider(make_queries(6, seed=6), seed=6) as llms,
    Router(
        candidates=llms.candidates(),  # real: ["openai/gpt-4o-mini", "openai/gpt-4o"]
        default="openai/simulated-large",  # real: "openai/gpt-4o"
        store=f"sqlite:///{folder}/optllm.db",
    ) as router,
):
    llm = ChatOptLLM(router=router, task="puzzles", policy=TargetAccuracy(0.9), tags=["demo"])
    prompt = ChatPromptTemplate([("system", "Answer briefly."), ("human", "{question}")])

    chain = prompt | llm | StrOutputParser()
    print("chain: ", chain.invoke({"question": QUESTIONS[0]}))

    print("stream:", end=" ")
    for text in chain.stream({"question": QUESTIONS[1]}):
        print(text, end="", flush=True)

    print("\nbatch: ", chain.batch([{"question": question} for question in QUESTIONS[2:5]]))

    message = llm.invoke(QUESTIONS[5])
    facts = message.response_metadata["optllm"]
    print(f"\nserved by {message.response_metadata['model_name']} ({facts['reason']})")
    print(f"${facts['cost_usd']:.6f} for {message.usage_metadata}")
    router.feedback(facts["decision_id"], score=1.0)
    print("score in the log:", router.history.decision(facts["decision_id"]).score)
