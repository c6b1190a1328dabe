"""`optllm init` and `optllm check`."""

from __future__ import annotations

import pytest

from optllm_router.config import load_config, starter_toml


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_settings_that_can_be_read(optllm, empty):
    result = optllm("init")

    assert "wrote optllm.toml; next: edit it, then `optllm check`\n" == result.stdout
    assert "openai/gpt-4o" == load_config(empty / "optllm.toml").default


def test_init_takes_the_user_s_models_from_cheap_to_good(as_json, empty):
    values = as_json("init", "openai/gpt-4.1-nano", "openai/gpt-4.1", "--config", "team.toml")

    assert {"path": "team.toml"} == values
    config = load_config(empty / "team.toml")
    assert "openai/gpt-4.1" == config.default
    assert ["openai/gpt-4.1-nano", "openai/gpt-4.1"] == [one.name for one in config.candidates]


def test_init_leaves_a_file_alone_unless_forced(optllm, empty):
    (empty / "optllm.toml").write_text("mine")

    assert "'optllm.toml' exists and is left as it is" in optllm("init", code=2).stderr
    assert "mine" == (empty / "optllm.toml").read_text()

    optllm("init", "--force")

    assert starter_toml() == (empty / "optllm.toml").read_text()


def test_check_tells_prices_labels_and_what_is_weak(as_json, learned):
    values = as_json("check")

    assert values["usable"] is True
    assert [] == values["problems"]
    assert [("weak", 1.0, 20, True), ("good", 10.0, 20, True)] == [
        (one["name"], one["input_usd_per_1m"], one["n_labels"], one["has_key"])
        for one in values["candidates"]
    ]
    assert "`route_models` is empty: only calls with model='auto' are routed" in values["remarks"]


def test_check_says_usable_on_standard_output_and_remarks_beside_it(optllm, fresh):
    result = optllm("check")

    assert "usable" == result.stdout.splitlines()[-1]
    assert "remark: not fitted: 0/20 labels" in result.stderr


@pytest.mark.parametrize(
    ("code", "wrong", "right", "problem"),
    [
        (2, 'mode = "rout"', "", "optllm.toml:1: `mode`"),
        (2, 'default = "best"', 'default = "good"', "optllm.toml:2: `default`"),
        (2, "input_usd_per_1m = nan", "input_usd_per_1m = 1\n", "`candidates[0].input_usd_per_1m`"),
        (
            1,
            'store = "sqlite:////no/such/folder/log.db"',
            'store = "sqlite:///log.db"',
            "/no/such/folder",
        ),
    ],
)
def test_check_ends_with_2_for_mistakes_and_with_1_for_what_else_makes_the_router_unusable(
    as_json, fresh, code, wrong, right, problem
):
    text = (fresh / "optllm.toml").read_text()
    text = text.replace(right, f"{wrong}\n", 1) if right else f"{wrong}\n{text}"
    (fresh / "optllm.toml").write_text(text)

    values = as_json("check", code=code)

    assert values["usable"] is False
    assert problem in values["problems"][0]


def test_check_ends_with_1_when_no_candidate_has_its_key(as_json, fresh, monkeypatch):
    monkeypatch.delenv("OPTLLM_TEST_KEY")

    values = as_json("check", code=1)

    assert ["no candidate can be called: none of their `api_key_env` variables is set"] == values[
        "problems"
    ]
    assert "weak: the environment variable OPTLLM_TEST_KEY is not set" in values["remarks"]


def test_check_names_an_unpriced_candidate(as_json, fresh):
    text = (fresh / "optllm.toml").read_text()
    text = text.replace("input_usd_per_1m = 1\n", "").replace("output_usd_per_1m = 1\n", "")
    (fresh / "optllm.toml").write_text(text)

    values = as_json("check", code=2)

    assert "candidate 'weak' has no token price" in values["problems"][0]
