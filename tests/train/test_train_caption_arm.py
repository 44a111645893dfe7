"""Expressions that choose an arm's captions."""

from __future__ import annotations

import pytest

from understudy.core.errors import ConfigError
from understudy.train.caption_arm import CaptionArm, parse_arm
from understudy.train.student_config import StudentConfig


@pytest.mark.parametrize(
    ("text", "expected", "odds"),
    [
        ("text", CaptionArm(name="text", captions="real", text="text"), {"text": 1.0}),
        (
            "alt = text.web",
            CaptionArm(name="alt", captions="real", text="text.web"),
            {"text.web": 1.0},
        ),
        (
            "syn=caption.coca",
            CaptionArm(name="syn", captions="syn", captioner="coca"),
            {"caption.coca": 1.0},
        ),
        (
            "both=text & caption.coca",
            CaptionArm(name="both", captions="both", text="text", captioner="coca"),
            {"text": 0.5, "caption.coca": 0.5},
        ),
        (
            "mix=0.3*text + 0.9 * caption.coca",
            CaptionArm(name="mix", captions="mix", text="text", captioner="coca", mix=0.75),
            {"text": 0.25, "caption.coca": 0.75},
        ),
        (
            "caption.a+text",
            CaptionArm(name="caption.a_text", captions="mix", text="text", captioner="a", mix=0.5),
            {"text": 0.5, "caption.a": 0.5},
        ),
    ],
)
def test_expressions(text, expected, odds):
    found = parse_arm(text)
    assert found == expected
    assert found.odds == pytest.approx(odds)
    assert found.columns == tuple(odds)


def test_an_arm_changes_captions_and_nothing_else():
    base = StudentConfig(lam=0.0, vocab_size=600, seed=4)
    config = parse_arm("m=text.web + 3*caption.coca").student(base)
    assert (config.captions, config.text_column, config.captioner) == ("mix", "text.web", "coca")
    assert config.mix == 0.75
    assert (config.seed, config.train, config.lam) == (4, base.train, 0.0)
    assert parse_arm("caption.coca").student(base).text_column == "text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the expression is empty"),
        ("alt=", "the expression is empty"),
        (" = ", "the expression is empty"),
        ("alt=text +", "'' is no column"),
        ("alt=te xt", "is no column"),
        ("alt=text & caption.a + caption.b", "use '\\+' .* or '&'"),
        ("alt=0.5*text & caption.a", "odds belong to '\\+'"),
        ("alt=text + text.b", "at most one column of texts"),
        ("alt=caption.a & caption.b", "at most one column of texts and one captioner"),
        ("alt=0*text + caption.a", "odds must be above 0"),
        ("a/b=text", "is no name"),
    ],
)
def test_bad_input(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_arm(text)
