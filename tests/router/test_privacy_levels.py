"""What the database file holds of a prompt, byte by byte, at each privacy level."""

import pytest

from optllm_router.core.features import text_key
from optllm_router.testing.scripted import Line

TEXT = "Confidential: Zanzibar merges with Quetzalcoatl on Friday"
KEY = "a-feature-key-of-ours"


def raw(tmp_path):
    return b"".join(path.read_bytes() for path in sorted(tmp_path.glob("log.db*")))


@pytest.fixture
def write(make_router, train, client, ask, tmp_path):
    """Call, stream, fail, pin, batch and probe with TEXT; return the router, closed, and bytes."""

    def act(**settings):
        router = make_router(**settings)
        system = {"role": "system", "content": f"System: {TEXT}"}
        router.complete(messages=[system, *ask(TEXT)], user="u")
        list(router.complete(messages=ask(TEXT), stream=True))
        router.complete("other", ask(TEXT))
        router.complete_batch([TEXT])
        router.probe([TEXT], grader=lambda _text, _reference: 1.0)
        client._scripts["dear"] = lambda _: Line(error=ValueError(f"bad request: {TEXT!r}"))
        with pytest.raises(ValueError, match="bad request"):
            router.complete("dear", ask(TEXT))
        client._scripts["dear"] = lambda _: Line(error=ValueError(f"bad: {TEXT[14:40]}"))
        with pytest.raises(ValueError, match="bad: Zanzibar"):
            router.complete("dear", ask(TEXT))
        decisions = router._engine.store.decisions()
        router.close()
        return decisions, raw(tmp_path)

    return act


@pytest.mark.parametrize(
    ("level", "has_key", "has_features", "has_text"),
    [
        ("none", False, False, False),
        ("hash", True, False, False),
        ("features", True, True, False),
        ("full", True, True, True),
    ],
)
def test_the_file_holds_what_its_level_says_and_nothing_else(
    write, level, has_key, has_features, has_text
):
    decisions, content = write(prompts=level, feature_key=KEY)

    assert has_text is (TEXT.encode() in content)
    assert has_text is (b"Zanzibar" in content)
    assert has_text is (b"Quetzalcoatl" in content)
    assert has_key is (text_key(TEXT, key=KEY.encode()).encode() in content)
    assert KEY.encode() not in content
    for one in decisions:
        decision = one.decision
        assert has_key is (decision.text_key is not None)
        assert has_features is (decision.features is not None)
        assert (TEXT if has_text else None) == decision.prompt


def test_the_default_is_features(write):
    decisions, content = write()

    assert b"Quetzalcoatl" not in content
    assert all(one.decision.features for one in decisions)


def test_hash_and_features_differ_by_key(make_router, ask, tmp_path):
    kept = {}
    for key in ("", "one key", "another key"):
        router = make_router(
            store=f"sqlite:///{tmp_path / f'log-{len(kept)}.db'}", feature_key=key or None
        )
        router.complete(messages=ask(TEXT))
        (one,) = router._engine.store.decisions()
        kept[key] = (one.decision.text_key, one.decision.features)

    assert 3 == len({text for text, _ in kept.values()})
    assert 3 == len({features for _, features in kept.values()})


def test_the_key_comes_from_the_environment(make_router, ask, monkeypatch):
    monkeypatch.setenv("OPTLLM_FEATURE_KEY", KEY)
    router = make_router()

    router.complete(messages=ask(TEXT))

    (one,) = router._engine.store.decisions()
    assert text_key(TEXT, key=KEY.encode()) == one.decision.text_key
    assert KEY not in repr(router.config)


@pytest.mark.parametrize("level", ["none", "hash"])
def test_a_log_without_features_learns_by_task(make_router, client, train, ask, level):
    router = make_router(prompts=level)
    train(router)

    response = router.complete(messages=ask("easy question"))

    assert response._hidden_params["optllm"]["predictor_version"]
    assert f"prompts = {level!r}: the own log refits on `task` only, not on the text" in (
        router.check()
    )
