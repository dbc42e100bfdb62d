"""The models among which a person switches."""

import pytest

from mhnet_video.live.model_choice import ModelChoice, models_at_hand

pytestmark = pytest.mark.beside


def test_after_the_last_model_comes_automatic_choice():
    choice = ModelChoice(["big", "small"], ["big", "small"])
    assert choice.take_request() is None
    assert [choice.next(), choice.next(), choice.next()] == ["big", "small", "big, small"]
    assert choice.take_request() == choice.models == ["big", "small"]
    assert choice.take_request() is None
    assert choice.next() == "big"


@pytest.mark.parametrize(
    ("every", "said"),
    [([], "one model only: the weights file"), (["small"], "one model only: small")],
)
def test_a_single_model_is_not_switched(every, said):
    choice = ModelChoice(["small"], every)
    assert choice.next() == said and choice.take_request() is None


def test_a_model_that_is_named_is_the_only_one():
    assert models_at_hand("mine") == ["mine"]
    assert len(models_at_hand()) > 1
