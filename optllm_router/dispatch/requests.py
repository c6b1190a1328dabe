"""What a caller passed, read once: our own arguments apart, the query described, the rest as is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from optllm_router.completion.modelmap import CHECKED_PARAMETERS
from optllm_router.core.cost import n_retries
from optllm_router.core.embedding import Dense
from optllm_router.core.features import clip_text
from optllm_router.core.policy import Policy
from optllm_router.errors import ConfigError
from optllm_router.records import Query

AUTO = "auto"
CREDENTIALS = ("api_key", "api_base", "base_url", "custom_llm_provider", "extra_headers")
REROUTING = ("fallbacks", "context_window_fallback_dict", "model_list")
LIMITS = ("n", "max_tokens", "max_completion_tokens", "max_output_tokens")
OWN_ARGUMENTS = ("task", "policy", "tags", "session_id", "reference")
CountTokens = Callable[[Sequence[Mapping[str, Any]], Sequence[Any] | None, Any], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call as it came in.

    `arguments` go to the client (messages included, None values and our own arguments removed);
    `routed` says whether the router chooses; `reference` is what graders compare with.
    `embedding` is the query's, None where there is none.
    """

    requested: str
    routed: bool
    arguments: Mapping[str, Any]
    query: Query
    policy: Policy | None
    tags: tuple[str, ...]
    session_id: str | None
    reference: Any
    embedding: Dense | None = field(default=None, repr=False, compare=False)

    @property
    def stream(self) -> bool:
        """Whether the caller wants chunks."""
        return bool(self.arguments.get("stream"))

    @property
    def may_reroute(self) -> bool:
        """Whether the caller lets LiteLLM have another model answer."""
        return any(name in self.arguments for name in REROUTING)


def read_request(  # noqa: PLR0913  # a call's arguments, and what they are read by
    model: str | None,
    messages: Sequence[Any] | None,
    kwargs: Mapping[str, Any],
    *,
    route_models: frozenset[str],
    shadow: bool,
    count_tokens: CountTokens,
) -> Request:
    """Read a call's arguments; in shadow mode a name is called as asked, credentials and all.

    Raises: ConfigError for what cannot be called.
    """
    arguments = {name: value for name, value in kwargs.items() if value is not None}
    own = {name: arguments.pop(name, None) for name in OWN_ARGUMENTS}
    requested = AUTO if model is None else model
    if not isinstance(requested, str):
        raise ConfigError(f"`model={requested!r}` is not a name: pass a string such as 'auto'")
    routed = requested == AUTO or requested in route_models
    as_asked = not routed or (shadow and requested != AUTO)
    if not as_asked:
        _refuse_with_routed(requested, arguments)
    arguments["messages"] = _checked_messages(messages)
    return Request(
        requested=requested,
        routed=routed,
        arguments=arguments,
        query=_described(arguments, own["task"], count_tokens, as_asked=as_asked),
        policy=own["policy"],
        tags=_checked_tags(own["tags"]),
        session_id=None if own["session_id"] is None else str(own["session_id"]),
        reference=own["reference"],
    )


def check_bound(request: Request) -> None:
    """Refuse arguments that a hard budget cannot bound. Raises: ConfigError."""
    arguments = request.arguments
    for name in REROUTING:
        if name in arguments:
            raise ConfigError(
                f"`{name}={arguments[name]!r}` was passed while a hard budget binds, but it lets "
                "another model answer, whose price is not reserved: leave it out, or lift the "
                "budget"
            )
    if arguments.get("service_tier") == "priority":
        raise ConfigError(
            "`service_tier='priority'` was passed while a hard budget binds, but its dearer price "
            "is known only per candidate: set it in a candidate's `arguments`, or lift the budget"
        )
    _refuse_hidden_limits(arguments)
    for name in LIMITS[:3]:
        _whole(arguments, name)


def _refuse_hidden_limits(arguments: Mapping[str, Any]) -> None:
    """Refuse what bounds a call's cost inside of `extra_body`, where worst cases do not see it."""
    body: Any = arguments.get("extra_body")
    for name in LIMITS if isinstance(body, Mapping) else ():
        if name in body:
            raise ConfigError(
                f"`extra_body={{{name!r}: {body[name]!r}}}` would bypass the worst case of this "
                f"call: pass `{'n' if name == 'n' else 'max_tokens'}` as an argument of its own"
            )


def _described(
    arguments: Mapping[str, Any], task: str | None, count_tokens: CountTokens, *, as_asked: bool
) -> Query:
    """Describe a query. Raises: ConfigError, also where messages are nothing like messages."""
    readable = arguments
    if as_asked:  # what is no limit to us is between the caller and the provider
        readable = {k: v for k, v in arguments.items() if k not in LIMITS or _is_whole(v)}
    try:
        return describe_query(readable, task, count_tokens)
    except ConfigError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise ConfigError(
            f"`messages` or `tools` cannot be read ({type(error).__name__}: {error}): pass "
            'messages such as {"role": "user", "content": "…"}, with a text or a list of parts as '
            "content"
        ) from error


def describe_query(
    arguments: Mapping[str, Any], task: str | None, count_tokens: CountTokens
) -> Query:
    """Describe what is asked: routed text, task, size and what it needs of a candidate."""
    messages = arguments["messages"]
    tools = _listed(arguments, "tools") or _listed(arguments, "functions")
    wants = _response_format(arguments.get("response_format"))
    limits = [_whole(arguments, name) for name in ("max_completion_tokens", "max_tokens")]
    drops = arguments.get("drop_params") is True
    return Query(
        text=clip_text(routed_text(messages)),
        task=str(task) if task is not None else _task_of_system_prompt(messages),
        n_prompt_tokens=count_tokens(messages, tools, arguments.get("response_format")),
        n_turns=len(messages),
        n_tools=len(tools),
        n_images=sum(_n_images(_field(message, "content")) for message in messages),
        n_choices=_whole(arguments, "n") or 1,
        wants_json=wants is not None,
        wants_json_schema=wants == "json_schema",
        max_output_tokens=max((limit for limit in limits if limit is not None), default=None),
        n_thinking_tokens=_thinking(arguments.get("thinking")),
        parameters=frozenset() if drops else _checked(arguments),
        n_retries=n_retries(arguments),
    )


def _thinking(wanted: object) -> int:
    """The tokens that a `thinking` argument grants to thinking."""
    budget = wanted.get("budget_tokens") if isinstance(wanted, Mapping) else None
    return budget if _is_whole(budget) else 0


def _checked(arguments: Mapping[str, Any]) -> frozenset[str]:
    """The optional arguments that a candidate has to support; `n=1` asks for nothing."""
    wanted = CHECKED_PARAMETERS & arguments.keys()
    return wanted - {"n"} if arguments.get("n") == 1 else wanted


def _whole(arguments: Mapping[str, Any], name: str) -> int | None:
    """Read a count that bounds what a call can cost. Raises: ConfigError where it is none."""
    value = arguments.get(name)
    if value is None:
        return None
    if not _is_whole(value):
        raise ConfigError(f"`{name}={value!r}` is not a whole number of at least 1")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _listed(arguments: Mapping[str, Any], name: str) -> list[Any]:
    value = arguments.get(name)
    if value is None:
        return []
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"`{name}` is a {type(value).__name__}: pass a list")
    return list(value)


def routed_text(messages: Sequence[Any]) -> str:
    """Return the text of the last user message, of the last message where no user spoke."""
    if not messages:
        return ""
    spoken = [m for m in messages if _field(m, "role") == "user"] or [messages[-1]]
    return _text_of(_field(spoken[-1], "content"))


def checked_requests(requests: object) -> list[Any]:
    """Return a batch as a list. Raises: ConfigError for a single text or request, or no list."""
    if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
        raise ConfigError(
            f"a {type(requests).__name__} is no batch: pass a list of requests, each a text, a "
            "list of messages, or a dict of `complete` arguments"
        )
    return list(requests)


def checked_concurrency(concurrency: object) -> int:
    """Return how many calls run at once. Raises: ConfigError."""
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"`concurrency={concurrency!r}` is not a whole number of at least 1")
    return concurrency


def item_arguments(item: object) -> dict[str, Any]:
    """Turn a batch item (text, message list, or dict of arguments) into `complete` arguments."""
    if isinstance(item, str):
        return {"messages": [{"role": "user", "content": item}]}
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, Sequence) and not isinstance(item, bytes):
        return {"messages": list(item)}
    raise ConfigError(
        f"a batch item is a {type(item).__name__}: pass a text, a list of messages, or a dict of "
        "`complete` arguments"
    )


def _refuse_with_routed(requested: str, arguments: Mapping[str, Any]) -> None:
    for name in (*CREDENTIALS, *REROUTING):
        if name in arguments:
            raise ConfigError(
                f"`{name}` was passed with the routed model {requested!r}, but the candidate is "
                f"chosen by the router: set it on the candidates in the config, or name the model "
                "to call (a pin)"
            )
    _refuse_hidden_limits(arguments)


def _checked_messages(messages: object) -> list[Any]:
    if messages is None:
        raise ConfigError("`messages` is missing: pass a list of messages")
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise ConfigError(
            f"`messages` is a {type(messages).__name__}: pass a list such as "
            '[{"role": "user", "content": "…"}]'
        )
    return list(messages)


def _checked_tags(tags: object) -> tuple[str, ...]:
    if tags is None:
        return ()
    if isinstance(tags, str) or not isinstance(tags, Sequence | set | frozenset):
        raise ConfigError(f"`tags={tags!r}` is not a list of strings: pass e.g. tags=['team-a']")
    return tuple(dict.fromkeys(str(tag) for tag in tags))


def _field(message: Any, name: str) -> Any:
    """Read a field of a message, which is a dict or one of LiteLLM's message objects."""
    if isinstance(message, Mapping):
        return message.get(name)
    return getattr(message, name, None)


def _text_of(content: object) -> str:
    """The text of a message's content; parts that are no text do not count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = [
        part if isinstance(part, str) else _field(part, "text")
        for part in content
        if isinstance(part, str) or _field(part, "type") in ("text", "input_text", None)
    ]
    return "\n".join(part for part in parts if isinstance(part, str))


def _n_images(content: object) -> int:
    if isinstance(content, str) or not isinstance(content, Sequence):
        return 0
    kinds = ("image_url", "image", "input_image")
    return sum(not isinstance(part, str) and _field(part, "type") in kinds for part in content)


def _task_of_system_prompt(messages: Sequence[Any]) -> str:
    """A short hash that stands for the system prompt; "" where there is none."""
    for message in messages:
        if _field(message, "role") in ("system", "developer"):
            text = _text_of(_field(message, "content"))
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4)
            return f"system-{digest.hexdigest()}"
    return ""


def _response_format(wanted: object) -> str | None:
    """The kind of structured answer that is wanted: a format's type, or a schema class."""
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, Mapping) else "json_schema"
    return None if kind in (None, "text") else str(kind)
