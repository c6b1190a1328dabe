"""Settings: what is read, which source wins, and that every mistake is named with its place."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from optllm_router.config import (
    ENVIRONMENT,
    CandidateSettings,
    Config,
    GraderSettings,
    PolicySettings,
    budget_lines,
    build_policy,
    load_config,
    make_config,
    starter_toml,
)
from optllm_router.config.lines import key_lines
from optllm_router.core.policy import (
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    TargetAccuracy,
    WillingnessToPay,
)
from optllm_router.errors import ConfigError
from optllm_router.records import BudgetLine

FULL = """\
store = "sqlite:///team.db"
default = "good"
route_models = ["gpt-4o"]
mode = "shadow"
prompts = "hash"
durability = "full"

[policy]
kind = "budget"
usd = 2.50
per = "batch"

[retrain]
every_outcomes = 100
every = "90s"
min_labels = 20
enabled = false

[predictor]
n_bootstraps = 10
seed = 7

[[candidates]]
model = "openai/gpt-4o-mini"
api_key_env = "OPENAI_API_KEY"
max_output_tokens = 2048
arguments = { temperature = 0.25, extra_headers = { "X-Team" = "a" } }

[[candidates]]
name = "good"
model = "hosted_vllm/big"
api_base = "http://localhost:8000/v1"
context_window = 32768
tools = true
vision = false
json_schema = true
input_usd_per_1m = 0.1
output_usd_per_1m = "0.30"
cached_input_usd_per_1m = 0
cache_write_usd_per_1m = 0.1234567890123456789

[graders.default]
kind = "exact"
casefold = true

[graders.triage]
kind = "regex"
pattern = 'answer: (\\w+)'
group = 1
"""
TWO = """
[[candidates]]
model = "a"
[[candidates]]
model = "b"
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str | bytes) -> Path:
        path = tmp_path / "optllm.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def mistakes(path: Path, **overrides: object) -> list[str]:
    """Load a wrong file and return the lines of the error, the file's path cut to its name."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, **overrides)
    return str(caught.value).replace(str(path), path.name).split("\n")


def wrong_arguments(**settings: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_config(**settings)
    return str(caught.value).split("\n")


def test_a_full_file_is_read_key_by_key(write):
    config = load_config(write(FULL))

    assert config.store == "sqlite:///team.db"
    assert config.default == "good"
    assert config.route_models == ("gpt-4o",)
    assert (config.mode, config.prompts, config.durability) == ("shadow", "hash", "full")
    assert config.policy == PolicySettings(kind="budget", usd=2.5, per="batch")
    assert config.policy.settings() == {"usd": 2.5, "per": "batch"}
    assert config.retrain.model_dump() == {
        "enabled": False,
        "every_outcomes": 100,
        "every_s": 90.0,
        "min_labels": 20,
    }
    assert config.predictor.model_dump() == {"kind": "ridge", "n_bootstraps": 10, "seed": 7}
    assert config.graders == {
        "default": GraderSettings(kind="exact", casefold=True),
        "triage": GraderSettings(kind="regex", pattern=r"answer: (\w+)", group=1),
    }
    assert [candidate.name for candidate in config.candidates] == ["openai/gpt-4o-mini", "good"]


def test_overrides_of_a_candidate_are_what_was_set_beyond_its_model(write):
    first, second = load_config(write(FULL)).candidates

    assert first.overrides() == {
        "name": "openai/gpt-4o-mini",
        "api_key_env": "OPENAI_API_KEY",
        "max_output_tokens": 2048,
        "arguments": {"temperature": 0.25, "extra_headers": {"X-Team": "a"}},
    }
    assert second.overrides() == {
        "name": "good",
        "api_base": "http://localhost:8000/v1",
        "context_window": 32768,
        "tools": True,
        "vision": False,
        "json_schema": True,
        "input_usd_per_1m": Decimal("0.1"),
        "output_usd_per_1m": Decimal("0.30"),
        "cached_input_usd_per_1m": Decimal(0),
        "cache_write_usd_per_1m": Decimal("0.1234567890123456789"),
    }


def test_defaults_are_the_documented_ones():
    config = make_config(candidates="openai/gpt-4o-mini")

    assert config.model_dump(exclude={"candidates", "policy"}) == {
        "default": "openai/gpt-4o-mini",
        "store": "sqlite:///optllm.db",
        "route_models": (),
        "mode": "route",
        "prompts": "features",
        "durability": "normal",
        "budgets": (),
        "retrain": {
            "enabled": True,
            "every_outcomes": 200,
            "every_s": 86400.0,
            "min_labels": 50,
        },
        "calls": {
            "timeout_s": 1200.0,
            "attempt_timeout_s": None,
            "reserve_timeout_s": 30.0,
            "max_attempts": 4,
            "open_after": 5,
            "cooldown_s": 5.0,
        },
        "search": "exact",
        "predictor": {"kind": "ridge", "n_bootstraps": 50, "seed": 0},
        "graders": {},
        "embedder": None,
        "feature_key": b"",
    }
    assert config.policy == PolicySettings(kind="knee")


def test_candidates_may_be_names_mappings_and_settings():
    config = make_config(
        candidates=["a", {"model": "b", "name": "bee"}, CandidateSettings(model="c")], default="a"
    )

    assert [(each.name, each.model) for each in config.candidates] == [
        ("a", "a"),
        ("bee", "b"),
        ("c", "c"),
    ]


def test_a_float_price_means_the_decimal_that_it_prints_as():
    config = make_config(
        candidates=[{"model": "a", "input_usd_per_1m": 0.1, "output_usd_per_1m": 3}]
    )

    assert config.candidates[0].input_usd_per_1m == Decimal("0.1")
    assert config.candidates[0].output_usd_per_1m == Decimal(3)


def test_config_and_its_parts_cannot_be_changed():
    config = make_config(candidates="a")

    with pytest.raises(ValidationError):
        config.mode = "shadow"
    with pytest.raises(ValidationError):
        config.retrain.min_labels = 1


def test_argument_wins_over_environment_over_file_over_default(write, monkeypatch):
    path = write(
        'store = "sqlite:///file.db"\nmode = "shadow"\nprompts = "none"\ndefault = "a"' + TWO
    )
    monkeypatch.setenv("OPTLLM_STORE", "sqlite:///env.db")
    monkeypatch.setenv("OPTLLM_MODE", "route")

    config = load_config(path, store="sqlite:///argument.db")

    assert config.store == "sqlite:///argument.db"
    assert config.mode == "route"
    assert config.prompts == "none"
    assert config.durability == "normal"


def test_environment_variables_reach_arguments_only_configs(monkeypatch):
    monkeypatch.setenv("OPTLLM_DEFAULT", "b")
    monkeypatch.setenv("OPTLLM_ROUTE_MODELS", "gpt-4o, gpt-4")
    monkeypatch.setenv("OPTLLM_FEATURE_KEY", "pepper")
    monkeypatch.setenv("OPTLLM_PROMPTS", "full")
    monkeypatch.setenv("OPTLLM_DURABILITY", "full")
    monkeypatch.setenv("OPTLLM_MODE", "")

    config = make_config(candidates=["a", "b"])

    assert config.default == "b"
    assert config.route_models == ("gpt-4o", "gpt-4")
    assert config.feature_key == b"pepper"
    assert (config.prompts, config.durability, config.mode) == ("full", "full", "route")


def test_none_means_unset(monkeypatch):
    monkeypatch.setenv("OPTLLM_STORE", "sqlite:///env.db")

    config = make_config(candidates=["a"], default=None, store=None, policy=None)

    assert (config.default, config.store) == ("a", "sqlite:///env.db")


def test_an_argument_sets_single_keys_of_retrain_and_predictor(write):
    config = load_config(write(FULL), retrain={"every": "2h"}, predictor={"seed": 1})

    assert (config.retrain.every_s, config.retrain.min_labels) == (7200.0, 20)
    assert (config.predictor.seed, config.predictor.n_bootstraps) == (1, 10)


def test_a_kind_alone_may_stand_for_the_predictors_table(write):
    path = write('default = "a"\npredictor = "forest"\nsearch = "destroy_repair"\n' + TWO)
    config = load_config(path)
    argued = make_config(candidates="a", predictor="forest", search="destroy_repair")

    for each in (config, argued):
        assert each.predictor.model_dump() == {"kind": "forest", "n_bootstraps": 50, "seed": 0}
        assert each.search == "destroy_repair"


def test_the_predictors_kind_and_its_other_keys_may_come_from_two_sources(write):
    named = load_config(write(FULL), predictor="forest").predictor
    counted = load_config(
        write('default = "a"\npredictor = "forest"\n' + TWO), predictor={"seed": 3}
    ).predictor

    assert (named.kind, named.n_bootstraps, named.seed) == ("forest", 10, 7)
    assert (counted.kind, counted.n_bootstraps, counted.seed) == ("forest", 50, 3)


def test_an_unknown_predictor_or_search_is_refused_where_it_stands(write):
    text = 'default = "a"\npredictor = "trees"\nsearch = "genetic"\n' + TWO
    with pytest.raises(ConfigError) as argued:
        load_config(write(FULL), predictor="trees")

    assert mistakes(write(text)) == [
        "optllm.toml:2: `predictor.kind` = 'trees': input should be 'ridge' or 'forest'",
        "optllm.toml:3: `search` = 'genetic': input should be 'exact' or 'destroy_repair'",
    ]
    assert str(argued.value).startswith("argument `predictor`: `predictor.kind` = 'trees'")


def test_a_policy_argument_replaces_the_files_policy(write):
    assert load_config(write(FULL), policy="cheapest").policy == PolicySettings(kind="cheapest")


def test_a_policy_object_is_kept_as_it_is():
    policy = Budget(2.0, per="call")

    config = make_config(candidates="a", policy=policy)

    assert config.policy is policy
    assert build_policy(config) is policy


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({"kind": "budget", "usd": 2}, Budget(2.0, per="batch")),
        ({"kind": "budget", "usd": 0.5, "per": "call"}, Budget(0.5, per="call")),
        ({"kind": "target_accuracy", "accuracy": 0.9}, TargetAccuracy(0.9, confidence=0.5)),
        (
            {"kind": "target_accuracy", "accuracy": 1, "confidence": 0.8},
            TargetAccuracy(1.0, confidence=0.8),
        ),
        ({"kind": "willingness_to_pay", "usd_per_success": 0.02}, WillingnessToPay(0.02)),
        ({"kind": "knee"}, Knee()),
        ("cheapest", Cheapest()),
        ("most_accurate", MostAccurate()),
        ({"kind": "fixed", "column": "a"}, Fixed("a")),
    ],
)
def test_every_kind_of_policy_is_built_from_its_settings(settings, policy):
    assert build_policy(make_config(candidates="a", policy=settings)) == policy


def test_secrets_do_not_show_in_the_repr(monkeypatch):
    monkeypatch.setenv("OPTLLM_FEATURE_KEY", "pepper")
    config = make_config(
        candidates=[{"model": "a", "arguments": {"extra_headers": {"Authorization": "sk-1"}}}]
    )

    assert "pepper" not in repr(config)
    assert "sk-1" not in repr(config)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("15m", 900.0), ("1.5h", 5400.0), ("7d", 604800.0)]
)
def test_durations_are_read_in_seconds(text, seconds):
    assert make_config(candidates="a", retrain={"every": text}).retrain.every_s == seconds


@pytest.mark.parametrize("value", ["24", "0s", "-1h", "2 weeks", "", 3600, True])
def test_a_bad_duration_is_refused(value):
    lines = wrong_arguments(candidates="a", retrain={"every": value})

    assert lines == [
        (
            f"argument `retrain`: `retrain.every` = {value!r}: a duration is a text of a positive "
            'number and a unit, s, m, h or d: write for instance "90s", "15m", "24h" or "7d"'
        )
    ]


def test_a_missing_file_names_the_command_that_writes_one(tmp_path):
    path = tmp_path / "no.toml"

    assert mistakes(path) == [
        "there is no config file 'no.toml': `optllm init` writes one, or give the path of yours"
    ]


def test_a_folder_is_not_a_config_file(tmp_path):
    assert mistakes(tmp_path) == [
        f"the config file '{tmp_path.name}' cannot be read: Is a directory"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = = 2\n", 2), ('mode = "route"\n\n[policy\n', 3), ('mode = "', 1), ("x=1\nx=2", 2)],
)
def test_a_syntax_error_has_its_line(write, text, line):
    lines = mistakes(write(text))

    assert len(lines) == 1
    assert lines[0].startswith(f"optllm.toml:{line}: not valid TOML: ")


def test_a_file_in_another_encoding_has_its_line(write):
    path = write('mode = "route"\nstore = "sqlite:///caf\xe9.db"\n'.encode("latin-1"))

    assert mistakes(path) == ["optllm.toml:2: not UTF-8 text: save the file as UTF-8"]


def test_byte_order_mark_and_windows_line_ends_are_read(write):
    path = write(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode())

    assert load_config(path).default == "good"


def test_an_unknown_key_names_the_nearest_one_and_its_line(write):
    path = write('default = "a"\nrout_models = ["x"]\n' + TWO)

    assert mistakes(path) == [
        (
            "optllm.toml:2: unknown key `rout_models`, did you mean `route_models`? (valid here: "
            "candidates, default, store, policy, route_models, mode, search, prompts, "
            "durability, budgets, retrain, calls, predictor, embedder, graders)"
        )
    ]


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        (
            '[[candidates]]\nmodel = "a"\n\nmax_tokens_out = 3\n',
            4,
            "candidates[0].max_tokens_out",
            "max_output_tokens",
        ),
        ('[[candidates]]\nmodel = "a"\n\nzzz = 3\n', 4, "candidates[0].zzz", ""),
        (
            '[[candidates]]\nmodel = "a"\ncontext_windw = 3\n',
            3,
            "candidates[0].context_windw",
            "context_window",
        ),
        (
            'candidates = [\n  { model = "a" },\n  { model = "b", "tool" = true },\n]',
            3,
            "candidates[1].tool",
            "tools",
        ),
        (
            'retrain = { every_outcome = 3 }\n[[candidates]]\nmodel = "a"',
            1,
            "retrain.every_outcome",
            "every_outcomes",
        ),
        ('retrain.evry = "1h"\n[[candidates]]\nmodel = "a"', 1, "retrain.evry", "every"),
        (
            '[[candidates]]\nmodel = "a"\n[policy]\n# usd\nkind = "knee"\nuds = 3',
            6,
            "policy.uds",
            "usd",
        ),
        (
            '[[candidates]]\nmodel = "a"\n[graders."my task"]\nkind = "exact"\npatern = "x"',
            5,
            "graders.my task.patern",
            "pattern",
        ),
    ],
)
def test_unknown_keys_are_found_in_every_kind_of_table(write, text, line, key, nearest):
    lines = mistakes(write(text), default="a")

    hint = f", did you mean `{nearest}`?" if nearest else ""
    assert len(lines) == 1
    assert lines[0].startswith(f"optllm.toml:{line}: unknown key `{key}`{hint} (valid here: ")


def test_strings_that_look_like_toml_do_not_confuse_the_lines(write):
    text = (
        'store = """sqlite:///x\n[policy]\nmode = "route"\n"""\n'
        "default = 'a' # [[candidates]]\n"
        'route_models = ["a,b]", \'c"\', # comment ]\n "d" ]\n'
        'mod = "route"\n'
    )

    assert mistakes(write(text + TWO))[0].startswith("optllm.toml:8: unknown key `mod`")


TRICKY = (
    r"""# [x]
a.b . "c d" = [ [1, 2], # ]
  [{ e = 'x#]', f.g = "\"}" }] ]
when = 1979-05-27 07:32:00 # a date
text = QQQ
h = 1QQQ'
"\u00e9" = DDDa\"DDbDDD
[ t . u ]
v = {}
[[t.w]]
[[t.w.y]]
[t.w.y.z]
k = []
[[t.w.y]]
k = true
[[t.w]]
y = [1]""".replace("QQQ", "'" * 3)
    .replace("DDD", '"' * 3)
    .replace("DD", '"' * 2)
)


def paths(value: object, at: tuple = ()) -> set[tuple]:
    """Return the paths of all keys and array entries of a parsed document."""
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    return ({at} - {()}).union(*(paths(child, (*at, key)) for key, child in children))


def test_every_key_of_a_document_has_its_line():
    lines = key_lines(TRICKY)

    assert set(lines) == paths(tomllib.loads(TRICKY))
    assert lines["a", "b", "c d", 1, 0, "f", "g"] == 3
    assert lines["é",] == 7
    assert lines["t", "w", 0, "y", 0, "z", "k"] == 13
    assert lines["t", "w", 0, "y", 1, "k"] == 15
    assert lines["t", "w", 1, "y", 0] == 17


def test_a_top_level_key_below_a_table_is_told_where_to_go(write):
    path = write('[[candidates]]\nmodel = "a"\nprompts = "none"\n')

    assert mistakes(path) == [
        (
            "optllm.toml:3: unknown key `candidates[0].prompts`: `prompts` is a top-level "
            "key, it must "
            "stand above the first [table] of the file"
        )
    ]


def test_all_mistakes_of_a_file_are_reported_together_in_its_order(write):
    path = write(
        'default = "c"\n'
        'mode = "shadwo"\n'
        "[retrain]\n"
        'every_outcomes = "many"\n'
        "min_labels = 0\n"
        "enabled = 1\n"
        "[[candidates]]\n"
        'model = "a"\n'
        "input_usd_per_1m = -1\n"
        "output_usd_per_1m = nan\n"
        "[[candidates]]\n"
        'model = "a"\n'
    )

    assert mistakes(path) == [
        (
            "optllm.toml:1: `default` = 'c' is not among the candidates: it must be the name "
            "of one of "
            "them ('a')"
        ),
        "optllm.toml:2: `mode` = 'shadwo': input should be 'route' or 'shadow'",
        "optllm.toml:4: `retrain.every_outcomes` = 'many': input should be a valid integer",
        "optllm.toml:5: `retrain.min_labels` = 0: input should be greater than or equal to 1",
        "optllm.toml:6: `retrain.enabled` = 1: input should be a valid boolean",
        (
            "optllm.toml:9: `candidates[0].input_usd_per_1m` = -1: a token price must be "
            "finite and "
            "not negative; write 0 if it is free"
        ),
        (
            "optllm.toml:10: `candidates[0].output_usd_per_1m` = NaN: a token price must be "
            "finite and "
            "not negative; write 0 if it is free"
        ),
        (
            "optllm.toml:11: candidate 'a' has the same name as candidates[0] (line 7): "
            "remove one of "
            "them, or give it a `name` of its own"
        ),
    ]


def test_mistakes_of_other_sources_name_the_source(write, monkeypatch):
    monkeypatch.setenv("OPTLLM_PROMPTS", "some")

    lines = mistakes(write('default = "a"\n' + TWO), mode="fast", retrain={"seed": 1})

    assert lines[0] == "argument `mode`: `mode` = 'fast': input should be 'route' or 'shadow'"
    assert lines[1] == (
        "environment variable OPTLLM_PROMPTS: `prompts` = 'some': "
        "input should be 'none', 'hash', 'features' or 'full'"
    )
    assert lines[2].startswith("argument `retrain`: unknown key `retrain.seed`")


def test_a_key_in_the_file_is_refused_and_not_repeated(write):
    path = write(
        '[[candidates]]\nmodel = "a"\napi_key = "sk-secret"\n'
        'arguments = { api_key = "sk-secret" }\napi_key_env = "sk-secret"\n'
    )

    lines = mistakes(path)

    refused = (
        "an API key does not belong in this file: put it into an environment variable and name "
        'that variable, api_key_env = "OPENAI_API_KEY"'
    )
    assert lines == [
        f"optllm.toml:3: `candidates[0].api_key`: {refused}",
        f"optllm.toml:4: `candidates[0].arguments.api_key`: {refused}",
        (
            "optllm.toml:5: `candidates[0].api_key_env`: `api_key_env` is the name of an "
            "environment "
            'variable, not a key: write api_key_env = "OPENAI_API_KEY" and set that variable '
            "where the "
            "router runs"
        ),
    ]


def test_the_feature_key_is_not_read_from_the_file(write):
    path = write('feature_key = "pepper"\ndefault = "a"\n' + TWO)

    assert mistakes(path) == [
        (
            "optllm.toml:1: `feature_key`: the key of the text hash does not belong in this "
            "file: set "
            "the environment variable OPTLLM_FEATURE_KEY"
        )
    ]


@pytest.mark.parametrize("settings", [{}, {"candidates": []}, {"candidates": ()}])
def test_no_candidates_is_an_error_with_a_way_out(settings):
    assert wrong_arguments(**settings) == [
        (
            "argument `candidates`: `candidates` is empty: a router needs at least one LLM to "
            "call: add "
            'a [[candidates]] table with model = "openai/gpt-4o-mini" (`optllm init` writes a '
            "starter "
            "file)"
        )
    ]


def test_single_brackets_around_candidates_are_explained(write):
    assert mistakes(write('[candidates]\nmodel = "a"\n')) == [
        (
            "optllm.toml:1: `candidates`: candidates are a list: write [[candidates]], with two "
            "brackets, above each"
        )
    ]


def test_a_candidate_without_a_model_is_one_mistake(write):
    assert mistakes(write('default = "x"\n[[candidates]]\nname = "x"\n')) == [
        "optllm.toml:2: `candidates[0].model` is missing"
    ]


def test_no_candidate_may_be_called_auto():
    assert wrong_arguments(candidates=["auto"]) == [
        (
            "argument `candidates`: `candidates[0].name`: no candidate may be called `auto`, which "
            "is what routed calls say: give it another `name`"
        )
    ]


def test_several_candidates_need_a_default(write):
    assert mistakes(write(TWO)) == [
        (
            "optllm.toml: `default` is missing: name the candidate that answers while nothing is "
            "learned yet, one of 'a', 'b'"
        )
    ]


def test_a_default_near_a_candidate_is_corrected():
    assert wrong_arguments(candidates=["gpt-4o", "gpt-4o-mini"], default="gpt-4o-mni") == [
        (
            "argument `default`: `default` = 'gpt-4o-mni' is not among the candidates, did "
            "you mean "
            "`gpt-4o-mini`?: it must be the name of one of them ('gpt-4o', 'gpt-4o-mini')"
        )
    ]


@pytest.mark.parametrize(
    ("given", "missing"),
    [("input_usd_per_1m", "output_usd_per_1m"), ("output_usd_per_1m", "input_usd_per_1m")],
)
def test_one_price_without_the_other_is_refused(given, missing):
    lines = wrong_arguments(candidates=[{"model": "a", given: 1}])

    assert len(lines) == 1
    assert lines[0].endswith(
        f"`{missing}` is missing: set both token prices, input and output, or neither"
    )


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -0.1, "-1", "NaN"])
def test_a_price_that_is_no_amount_is_refused(price):
    lines = wrong_arguments(
        candidates=[{"model": "a", "input_usd_per_1m": price, "output_usd_per_1m": 1}]
    )

    assert lines == [
        (
            f"argument `candidates`: `candidates[0].input_usd_per_1m` = {price!r}: a token "
            "price must "
            "be finite and not negative; write 0 if it is free"
        )
    ]


@pytest.mark.parametrize("price", [True, "cheap", [1]])
def test_a_price_that_is_no_number_is_refused(price):
    lines = wrong_arguments(
        candidates=[{"model": "a", "input_usd_per_1m": price, "output_usd_per_1m": 1}]
    )

    assert lines == [
        (
            f"argument `candidates`: `candidates[0].input_usd_per_1m` = {price!r}: a token "
            "price is a "
            "number of USD per 1M tokens, such as 0.15"
        )
    ]


def test_a_cache_price_needs_the_other_prices():
    lines = wrong_arguments(candidates=[{"model": "a", "cached_input_usd_per_1m": 1}])

    assert lines == [
        (
            "argument `candidates`: `candidates[0].cached_input_usd_per_1m` = 1: a cache "
            "price needs "
            "`input_usd_per_1m` and `output_usd_per_1m` beside it"
        )
    ]


def test_an_unknown_window_of_a_policy_is_refused_and_the_known_ones_named(write):
    path = write(
        '[policy]\nkind = "budget"\nusd = 1\nper = "fortnight"\n[[candidates]]\nmodel = "a"\n'
    )

    assert mistakes(path) == [
        (
            "optllm.toml:4: `policy.per` = 'fortnight': a budget is per call, batch, session, "
            "hour, day, week, month, total"
        )
    ]


@pytest.mark.parametrize("per", ["session", "hour", "day", "week", "month", "total"])
def test_a_policy_may_be_a_budget_of_any_window(write, per):
    path = write(
        f'[policy]\nkind = "budget"\nusd = 1\nper = "{per}"\n[[candidates]]\nmodel = "a"\n'
    )

    assert Budget(usd=1, per=per) == build_policy(load_config(path))


BUDGETS = """\
[[candidates]]
model = "a"
[[budgets]]
name = "team-a"
match = { tag = "team-a" }
usd = 0.1
per = "month"
timezone = "Europe/Berlin"
warn_at = 0.5
at_cap = "refuse"
[[budgets]]
name = "dear"
match = { candidate = "a" }
usd = 5
per = "hour"
rolling = true
[[budgets]]
name = "each"
usd = 0.01
per = "call"
"""


def test_budgets_are_read_and_those_that_processes_share_are_lines_of_exact_money(write):
    config = load_config(write(BUDGETS))

    assert ("team-a", "dear", "each") == tuple(budget.name for budget in config.budgets)
    assert budget_lines(config) == (
        BudgetLine(
            name="team-a",
            limit_nusd=100_000_000,
            per="month",
            scope="tag",
            value="team-a",
            timezone="Europe/Berlin",
            warn_at=0.5,
            at_cap="refuse",
        ),
        BudgetLine(
            name="dear",
            limit_nusd=5_000_000_000,
            per="hour",
            scope="candidate",
            value="a",
            rolling=True,
        ),
    )
    assert ("all", "") == (config.budgets[2].scope, config.budgets[2].value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("usd = 0", "`budgets[0].usd` = 0: input should be greater than 0"),
        (
            "usd = 1e12",
            (
                "`budgets[0].usd` = 1000000000000.0: amounts of more than 1,000,000,000 USD "
                "cannot be "
                "counted exactly"
            ),
        ),
        (
            'per = "year"',
            (
                "`budgets[0].per` = 'year': input should be 'call', 'batch', 'session', 'hour', "
                "'day', "
                "'week', 'month' or 'total'"
            ),
        ),
        (
            'match = { tga = "x" }',
            (
                "unknown key `budgets[0].match.tga`, did you mean `tag`? (valid here: tag, task, "
                "candidate)"
            ),
        ),
        (
            'match = { tag = "x", task = "y" }',
            (
                "`budgets[0].match`: a budget matches by one of `tag`, `task` and `candidate`: "
                "write "
                'match = { tag = "team-a" }, or leave `match` out to bind everything'
            ),
        ),
        (
            'match = { candidate = "b" }',
            (
                "`budgets[0].match.candidate` = 'b' is not among the candidates: it must be the "
                "name "
                "of one of them ('a')"
            ),
        ),
        (
            'per = "session"\nrolling = true',
            (
                '`budgets[0].rolling` = True: per = "session" cannot roll: only hour, day, week '
                "and "
                "month have a length"
            ),
        ),
        (
            'timezone = "Europe/Atlantis"',
            (
                "`budgets[0].timezone` = 'Europe/Atlantis': a time zone is an IANA name, such as "
                '"UTC" or "Europe/Berlin"; where the machine has no time zones, `pip install '
                "tzdata` "
                "brings them"
            ),
        ),
        (
            'rolling = true\ntimezone = "Europe/Berlin"',
            (
                "`budgets[0].timezone` = 'Europe/Berlin': a rolling window begins at no time of a "
                "day: leave `timezone` out"
            ),
        ),
        (
            'per = "total"\ntimezone = "Europe/Berlin"',
            (
                "`budgets[0].timezone` = 'Europe/Berlin': per = \"total\" begins at no time of "
                "a day: "
                "leave `timezone` out"
            ),
        ),
        (
            "warn_at = 2",
            "`budgets[0].warn_at` = 2: input should be less than or equal to 1",
        ),
        (
            'at_cap = "stop"',
            "`budgets[0].at_cap` = 'stop': input should be 'degrade', 'cheapest_free' or 'refuse'",
        ),
    ],
)
def test_a_wrong_budget_is_named_with_the_rule_and_the_way_out(write, line, message):
    given = dict(part.split(" = ", 1) for part in line.split("\n"))
    settings = {"name": '"x"', "usd": "1", "per": '"day"', **given}
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())

    found = mistakes(write(f'[[candidates]]\nmodel = "a"\n[[budgets]]\n{lines}\n'))

    assert [message] == [mistake.split(": ", 1)[1] for mistake in found]


def test_two_budgets_of_one_name_and_a_table_instead_of_a_list_are_refused(write):
    entry = '[[budgets]]\nname = "x"\nusd = 1\nper = "day"\n'

    assert mistakes(write(f'[[candidates]]\nmodel = "a"\n{entry}{entry}')) == [
        (
            "optllm.toml:7: budget 'x' has the same name as budgets[0] (line 3): remove one of "
            "them, "
            "or give it a `name` of its own"
        )
    ]
    assert mistakes(write('[[candidates]]\nmodel = "a"\n[budgets]\nusd = 1\n')) == [
        (
            "optllm.toml:3: `budgets`: budgets are a list: write [[budgets]], with two brackets, "
            "above each"
        )
    ]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"kind": "budget"}, '`policy.usd`: kind = "budget" needs `usd`'),
        (
            {"kind": "budget", "usd": 0},
            "`policy.usd` = 0: input should be greater than 0",
        ),
        (
            {"kind": "target_accuracy"},
            '`policy.accuracy`: kind = "target_accuracy" needs `accuracy`',
        ),
        (
            {"kind": "target_accuracy", "accuracy": 1.5},
            "`policy.accuracy` = 1.5: input should be less than or equal to 1",
        ),
        (
            {"kind": "knee", "usd": 1.0},
            '`policy.usd` = 1.0: kind = "knee" does not take `usd`; it takes no settings',
        ),
        ({"kind": "fixed"}, '`policy.column`: kind = "fixed" needs `column`'),
        (
            {"kind": "willingness_to_pay"},
            '`policy.usd_per_success`: kind = "willingness_to_pay" needs `usd_per_success`',
        ),
        (3, '`policy` = 3: write a table, such as { kind = "knee" }, or pass a policy object'),
    ],
)
def test_policy_settings_must_fit_the_kind(policy, message):
    assert wrong_arguments(candidates="a", policy=policy) == [f"argument `policy`: {message}"]


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ({"kind": "regex"}, '`graders.t.pattern`: kind = "regex" needs `pattern`'),
        ({"kind": "json_schema"}, '`graders.t.schema`: kind = "json_schema" needs `schema`'),
        ({"kind": "callable"}, '`graders.t.function`: kind = "callable" needs `function`'),
        (
            {"kind": "exact", "group": 1},
            (
                '`graders.t.group` = 1: kind = "exact" does not take `group`; it takes `casefold`, '
                "`strip`"
            ),
        ),
        ({}, "`graders.t.kind` is missing"),
    ],
)
def test_grader_settings_must_fit_the_kind(grader, message):
    assert wrong_arguments(candidates="a", graders={"t": grader}) == [
        f"argument `graders`: {message}"
    ]


def test_a_store_that_is_no_address_is_refused():
    assert wrong_arguments(candidates="a", store="optllm.db") == [
        (
            "argument `store`: `store` = 'optllm.db': a store is a database address, such as "
            '"sqlite:///optllm.db"'
        )
    ]


def test_an_embedder_is_a_path_in_the_file_and_itself_in_code(write):
    class Model:
        encode = staticmethod(len)

    path = write('embedder = "my.models:shelf.small"\ndefault = "a"\n' + TWO)
    model = Model()

    assert "my.models:shelf.small" == load_config(path).embedder
    assert model is load_config(path, embedder=model).embedder
    assert len is make_config(candidates="a", embedder=len).embedder
    assert make_config(candidates="a").embedder is None


@pytest.mark.parametrize("embedder", ["sentence-transformers/all-MiniLM-L6-v2", "my.models", 7, {}])
def test_what_is_no_embedder_is_refused_with_the_way_to_write_it(embedder):
    (line,) = wrong_arguments(candidates="a", embedder=embedder)

    assert line.startswith("argument `embedder`: `embedder`")
    assert 'an embedder is written as "package.module:name" of a function' in line


def test_the_starters_embedder_loads_once_uncommented(write):
    text = starter_toml(["a"]).replace("# embedder = ", "embedder = ")

    assert "my_module:embed" == load_config(write(text)).embedder


def test_an_unknown_argument_names_the_nearest():
    assert wrong_arguments(candidates="a", polcy="knee")[0].startswith(
        "argument `polcy`: unknown key `polcy`, did you mean `policy`?"
    )


def test_the_starter_file_loads_and_its_last_candidate_is_the_default(write):
    config = load_config(write(starter_toml(['say "hi"', "openai/gpt-4o"])))

    assert isinstance(config, Config)
    assert config.default == "openai/gpt-4o"
    assert [candidate.model for candidate in config.candidates] == ['say "hi"', "openai/gpt-4o"]
    assert {candidate.max_output_tokens for candidate in config.candidates} == {2048}


def test_the_starter_files_suggestions_load_once_uncommented(write):
    text = starter_toml(["a"]).replace("# [graders.default]", "[graders.default]")
    text = text.replace('# kind = "exact"', 'kind = "exact"')
    text = (
        text.replace("# api_", "api_").replace("# input_", "input_").replace("# output_", "output_")
    )

    config = load_config(write(text))

    assert config.graders == {"default": GraderSettings(kind="exact")}
    assert config.candidates[0].api_key_env == "OPENAI_API_KEY"
    assert config.candidates[0].input_usd_per_1m == Decimal("0.15")


def test_the_starters_budget_loads_once_uncommented(write):
    text = starter_toml(["a"])
    for line in ("[[budgets]]", "name =", "match =", "usd =", "per =", "timezone =", "at_cap ="):
        text = text.replace(f"# {line}", line)

    (line,) = budget_lines(load_config(write(text)))

    assert ("team-a", 100 * 10**9, "month", "tag", "team-a", "UTC") == (
        line.name,
        line.limit_nusd,
        line.per,
        line.scope,
        line.value,
        line.timezone,
    )


@pytest.mark.parametrize("candidates", [[], ["a", "a"]])
def test_a_starter_file_needs_distinct_candidates(candidates):
    with pytest.raises(ConfigError, match="name at least one model, and each only once"):
        starter_toml(candidates)


@pytest.mark.parametrize("name", ["n", "max_tokens", "stream", "messages"])
def test_a_candidates_arguments_cannot_change_what_a_call_may_cost(name: str):
    with pytest.raises(ConfigError) as caught:
        make_config(candidates=[{"model": "a", "arguments": {name: 2}}])

    assert str(caught.value) == (
        f"argument `candidates`: `candidates[0].arguments`: `{name}` belongs to the call, not to "
        "every call of a candidate; output is limited by `max_output_tokens`"
    )
