"""What may be set, with its rules: frozen pydantic records that refuse unknown keys.

Rules that look at one key, or at a key and those above it, stand here; they are field validators
(not model validators), so that one mistake does not hide the next. Rules between entries
(duplicate names, `default` among the candidates) stand in `load`. How single values are read
stands in `values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)

from optllm_router.config.values import (
    CandidateArguments,
    Duration,
    EmbedderSetting,
    FunctionPath,
    KeyVariable,
    Number,
    Positive,
    Price,
    RegexGroup,
    Secret,
    Switch,
    Text,
    Texts,
    Timezone,
)
from optllm_router.core.policy import SUPPORTED_PER, Policy
from optllm_router.records import AtCap, BudgetScope, PredictorKind, Prompts, SearchKind

PolicyKind = Literal[
    "budget",
    "target_accuracy",
    "willingness_to_pay",
    "knee",
    "cheapest",
    "most_accurate",
    "fixed",
]
PerCap = Literal["call", "batch", "session", "hour", "day", "week", "month", "total"]
GraderKind = Literal["exact", "contains", "regex", "json_schema", "callable"]

_POLICY_KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {  # needed, possible
    "budget": (frozenset({"usd"}), frozenset({"per"})),
    "target_accuracy": (frozenset({"accuracy"}), frozenset({"confidence"})),
    "willingness_to_pay": (frozenset({"usd_per_success"}), frozenset()),
    "knee": (frozenset(), frozenset()),
    "cheapest": (frozenset(), frozenset()),
    "most_accurate": (frozenset(), frozenset()),
    "fixed": (frozenset({"column"}), frozenset()),
}
_CALENDAR = frozenset({"hour", "day", "week", "month"})
_MOST_USD = 1_000_000_000  # a thousand of these fit the database's integers
_NORMALISING = frozenset({"strip", "casefold"})
_GRADER_KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "exact": (frozenset(), _NORMALISING),
    "contains": (frozenset(), _NORMALISING),
    "regex": (frozenset({"pattern"}), _NORMALISING | {"group"}),
    "json_schema": (frozenset({"schema"}), frozenset()),
    "callable": (frozenset({"function"}), frozenset()),
}


class Settings(BaseModel):
    """What all settings share: frozen, no unknown keys, defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _check_key(
    value: object, info: ValidationInfo, keys: Mapping[str, tuple[frozenset[str], frozenset[str]]]
) -> None:
    """Check one key against its table's `kind`: needed and absent, or given and foreign to it."""
    kind = info.data.get("kind")
    if kind is None or info.field_name is None:
        return  # the kind itself is wrong and is reported
    key = info.field_name.rstrip("_")
    needed, possible = keys[kind]
    if value is None and key in needed:
        raise ValueError(f'kind = "{kind}" needs `{key}`')
    if value is not None and key not in needed | possible:
        takes = ", ".join(f"`{name}`" for name in sorted(needed | possible)) or "no settings"
        raise ValueError(f'kind = "{kind}" does not take `{key}`; it takes {takes}')


class PolicySettings(Settings):
    """Where on the front to stand: one kind with its settings."""

    kind: PolicyKind = "knee"
    usd: Annotated[Number, Field(gt=0)] | None = None
    per: Text | None = None
    accuracy: Annotated[Number, Field(gt=0, le=1)] | None = None
    confidence: Annotated[Number, Field(gt=0, lt=1)] | None = None
    usd_per_success: Annotated[Number, Field(gt=0)] | None = None
    column: Text | None = None

    @field_validator("usd", "per", "accuracy", "confidence", "usd_per_success", "column")
    @classmethod
    def _fits_the_kind(cls, value: object, info: ValidationInfo) -> object:
        _check_key(value, info, _POLICY_KEYS)
        return value

    @field_validator("per")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in SUPPORTED_PER:
            raise ValueError(f"a budget is per {', '.join(SUPPORTED_PER)}")
        return value

    def settings(self) -> dict[str, object]:
        """Return the settings that were given, without `kind`."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class MatchSettings(Settings):
    """Which calls a budget binds: those with a tag, of a task, or to a candidate."""

    tag: Text | None = None
    task: Text | None = None
    candidate: Text | None = None


class BudgetSettings(Settings):
    """A cap beside the policy: how much, for which calls, in which windows, and what then.

    `match` None binds everything. A call or a batch is capped by itself, in its process; the other
    windows are shared by all processes on the store.
    """

    name: Text
    match: MatchSettings | None = None
    usd: Annotated[Number, Field(gt=0)]
    per: PerCap
    rolling: Switch = False
    timezone: Timezone = "UTC"
    warn_at: Annotated[Number, Field(gt=0, le=1)] = 0.8
    at_cap: AtCap = "degrade"

    @field_validator("match")
    @classmethod
    def _matches_by_one(cls, value: MatchSettings | None) -> MatchSettings | None:
        given = [] if value is None else list(value.model_dump(exclude_none=True))
        if value is not None and len(given) != 1:
            raise ValueError(
                "a budget matches by one of `tag`, `task` and `candidate`: write "
                'match = { tag = "team-a" }, or leave `match` out to bind everything'
            )
        return value

    @field_validator("usd")
    @classmethod
    def _can_be_counted(cls, value: float) -> float:
        if value > _MOST_USD:
            raise ValueError(f"amounts of more than {_MOST_USD:,} USD cannot be counted exactly")
        return value

    @field_validator("rolling")
    @classmethod
    def _has_a_length_to_roll(cls, value: bool, info: ValidationInfo) -> bool:
        per = info.data.get("per")
        if value and per is not None and per not in _CALENDAR:
            raise ValueError(
                f'per = "{per}" cannot roll: only hour, day, week and month have a length'
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _has_edges(cls, value: str, info: ValidationInfo) -> str:
        per, rolling = info.data.get("per"), info.data.get("rolling")
        if value == "UTC" or per is None or (per in _CALENDAR and not rolling):
            return value
        what = "a rolling window" if per in _CALENDAR else f'per = "{per}"'
        raise ValueError(f"{what} begins at no time of a day: leave `timezone` out")

    @property
    def scope(self) -> BudgetScope:
        """What `match` speaks of."""
        match = self.match or MatchSettings()
        if match.tag is not None:
            return "tag"
        if match.task is not None:
            return "task"
        return "all" if match.candidate is None else "candidate"

    @property
    def value(self) -> str:
        """The tag, task or candidate that `match` names, "" where it binds everything."""
        return "" if self.match is None else str(getattr(self.match, self.scope))


class RetrainSettings(Settings):
    """When to refit: after so many outcomes or so much time, whichever comes first.

    Where it is not `enabled`, new candidates do not join by themselves, either.
    """

    enabled: Switch = True
    every_outcomes: Positive = 200
    every_s: Duration = Field(default=86400.0, alias="every", validate_default=False)
    min_labels: Positive = 50


class PredictorSettings(Settings):
    """What predicts success, and how it is fitted; the kind alone may stand for the table."""

    kind: PredictorKind = "ridge"
    n_bootstraps: Annotated[int, Strict(), Field(ge=2)] = 50  # a spread needs two members
    seed: Annotated[int, Strict(), Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_kind(cls, data: object) -> object:
        return {"kind": data} if isinstance(data, str) else data


class CallSettings(Settings):
    """How long a call may take, how often it is tried, and when a candidate counts as down.

    `timeout` bounds all attempts of one call together, `attempt_timeout` each of them (None: half
    of `timeout`); of a stream, the first chunk and the waits between chunks. `reserve_timeout` is
    how long an attempt waits for money of a shared budget that other calls have set aside. A
    circuit opens after `open_after` failures in a row, for `cooldown` at first, for twice as long
    each further time.
    """

    timeout_s: Duration = Field(default=1200.0, alias="timeout", validate_default=False)
    attempt_timeout_s: Duration | None = Field(
        default=None, alias="attempt_timeout", validate_default=False
    )
    reserve_timeout_s: Duration = Field(
        default=30.0, alias="reserve_timeout", validate_default=False
    )
    max_attempts: Positive = 4
    open_after: Positive = 5
    cooldown_s: Duration = Field(default=5.0, alias="cooldown", validate_default=False)

    @field_validator("attempt_timeout_s")
    @classmethod
    def _is_within_the_total(cls, value: float | None, info: ValidationInfo) -> float | None:
        total = info.data.get("timeout_s")
        if value is not None and total is not None and value > total:
            raise ValueError(
                f"one attempt cannot take longer than all together: {value:g} s is more than the "
                f"`timeout` of {total:g} s; raise `timeout`, or lower `attempt_timeout`"
            )
        return value

    @property
    def each_timeout_s(self) -> float:
        """How long one attempt may take, in seconds."""
        return self.timeout_s / 2 if self.attempt_timeout_s is None else self.attempt_timeout_s


class CandidateSettings(Settings):
    """An LLM that we may call. What is None is taken from LiteLLM's local model map.

    `arguments` go with every call (headers, sampling); they may hold secrets and are not shown.
    `max_concurrency` and `requests_per_minute` are limits that this process keeps. Prices are exact
    decimals in USD per 1M tokens.
    """

    model: Text
    name: Text = ""
    api_key_env: KeyVariable = None
    api_base: Text | None = None
    arguments: CandidateArguments = Field(default_factory=dict, repr=False)
    max_output_tokens: Positive | None = None
    max_concurrency: Positive | None = None
    requests_per_minute: Positive | None = None
    context_window: Positive | None = None
    tools: Switch | None = None
    vision: Switch | None = None
    json_schema: Switch | None = None
    input_usd_per_1m: Price | None = None
    output_usd_per_1m: Price | None = None
    cached_input_usd_per_1m: Price | None = None
    cache_write_usd_per_1m: Price | None = None

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_name(cls, data: object) -> object:
        return {"model": data} if isinstance(data, str) else data

    @field_validator("name", mode="before")
    @classmethod
    def _defaults_to_the_model(cls, value: object, info: ValidationInfo) -> object:
        return value or info.data.get("model", "?")

    @field_validator("name")
    @classmethod
    def _is_not_auto(cls, value: str) -> str:
        if value == "auto":
            raise ValueError(
                "no candidate may be called `auto`, which is what routed calls say: give it "
                "another `name`"
            )
        return value

    @field_validator("output_usd_per_1m")
    @classmethod
    def _prices_come_in_pairs(cls, value: object, info: ValidationInfo) -> object:
        given = info.data.get("input_usd_per_1m", value)
        if (given is None) != (value is None):
            missing = "output_usd_per_1m" if value is None else "input_usd_per_1m"
            raise ValueError(
                f"`{missing}` is missing: set both token prices, input and output, or neither"
            )
        return value

    @field_validator("cached_input_usd_per_1m", "cache_write_usd_per_1m")
    @classmethod
    def _cache_prices_refine_others(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("input_usd_per_1m", value) is None:
            raise ValueError(
                "a cache price needs `input_usd_per_1m` and `output_usd_per_1m` beside it"
            )
        return value

    def overrides(self) -> dict[str, Any]:
        """Return what was set beyond `model` for `Client.candidate(model, overrides)`."""
        limits = {"max_concurrency", "requests_per_minute"}
        given = self.model_dump(exclude={"model", *limits}, exclude_none=True)
        return {key: value for key, value in given.items() if key != "arguments" or value}


class GraderSettings(Settings):
    """How answers of one task are scored: one kind with its settings."""

    kind: GraderKind
    strip: Switch | None = None
    casefold: Switch | None = None
    pattern: Text | None = None
    group: RegexGroup = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    function: FunctionPath | None = None

    @field_validator("strip", "casefold", "pattern", "group", "schema_", "function")
    @classmethod
    def _fits_the_kind(cls, value: object, info: ValidationInfo) -> object:
        _check_key(value, info, _GRADER_KEYS)
        return value


def _policy(value: object) -> object:
    """Read a policy table or kind; keep a policy object as it is."""
    if value is None or isinstance(value, str):
        value = {} if value is None else {"kind": value}
    if isinstance(value, Mapping):
        return PolicySettings.model_validate(value)
    if not isinstance(value, PolicySettings | Policy):
        raise ValueError('write a table, such as { kind = "knee" }, or pass a policy object')  # noqa: TRY004  # pydantic collects ValueError
    return value


class Config(Settings):
    """All settings of a router. Made by `load_config` and `make_config`, which check more.

    `policy` holds `PolicySettings`, or the policy object that was passed in code; see
    `build_policy`. `feature_key` keys the hash of texts and comes from the environment or from
    code, never from a file. `embedder` is its path, "package.module:name", or in code itself: see
    `core.embedding`; predictors of the kind "forest" do not look at embeddings.
    """

    candidates: tuple[CandidateSettings, ...]
    default: Text
    store: Text = "sqlite:///optllm.db"
    policy: Annotated[Any, BeforeValidator(_policy)] = PolicySettings()
    route_models: Texts = ()
    mode: Literal["route", "shadow"] = "route"
    search: SearchKind = "exact"
    prompts: Prompts = "features"
    durability: Literal["normal", "full"] = "normal"
    budgets: tuple[BudgetSettings, ...] = ()
    retrain: RetrainSettings = RetrainSettings()
    calls: CallSettings = CallSettings()
    predictor: PredictorSettings = PredictorSettings()
    embedder: EmbedderSetting = Field(default=None, repr=False)
    graders: dict[str, GraderSettings] = Field(default_factory=dict)
    feature_key: Secret = Field(default=b"", repr=False)

    @field_validator("store")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if "://" not in value:
            raise ValueError('a store is a database address, such as "sqlite:///optllm.db"')
        return value
