"""Conversations to token ids: templates, the place of images, and which tokens are learned.

A conversation is LLaVA's: a list of `{"from": "human" | "gpt", "value": text}`, with `<image>` in a
human text where an image stands. Only what the assistant says is learned, its end token included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.core.config import check_choice
from understudy.core.dialogue import MARK
from understudy.models.language.coder import Coder
from understudy.models.multimodal.splice import IGNORE, IMAGE, check_images

Turn = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """How turns become text.

    Attributes:
        system: text before everything.
        human: around a human text; `{}` stands for it.
        answer: before an assistant's text.
        end: text that ends an assistant's text; empty for the tokenizer's end token.
        after: text after that, not learned.
        images_only: keep a human text's images and drop its words: LLaVA's `plain`, for the first
            stage, where an image is followed by its caption.
        start: begin with the tokenizer's start token, where it has one.
    """

    system: str = ""
    human: str = "{}"
    answer: str = ""
    end: str = ""
    after: str = ""
    images_only: bool = False
    start: bool = False


TEMPLATES = {
    "qwen2": Template(
        system="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
        human="<|im_start|>user\n{}<|im_end|>\n",
        answer="<|im_start|>assistant\n",
        end="<|im_end|>",
        after="\n",
    ),
    "plain": Template(images_only=True),
    "words": Template(start=True),
}
"""`qwen2` as Qwen2's chat models have it, `plain` as LLaVA's first stage, and `words`, question
and answer one after the other, for small models with a tokenizer of their own."""


def encode_text(text: str, coder: Coder) -> list[int]:
    """Return a text's ids with `IMAGE` for every mark."""
    ids: list[int] = []
    for i, part in enumerate(text.split(MARK)):
        if i:
            ids.append(IMAGE)
        if part:
            ids += coder.encode(part)
    return ids


def _human(value: str, template: Template) -> str:
    if template.images_only:
        return MARK * value.count(MARK)
    # str.format would read braces in the text
    before, after = template.human.split("{}")
    return before + value + after


def _opening(template: Template, coder: Coder) -> list[int]:
    start = getattr(coder, "start_id", None)
    ids = [start] if template.start and start is not None else []
    return [*ids, *encode_text(template.system, coder)]


def encode_conversation(
    turns: Sequence[Turn], coder: Coder, template: str | Template, given: int, where: str
) -> tuple[list[int], list[int]]:
    """Return (ids, labels) of a conversation.

    Args:
        turns: a conversation that `check_turns` has passed.
        coder: the language model's tokenizer.
        template: a key of `TEMPLATES`, or one.
        given: images that go with it.
        where: what to call the sample in errors.

    Returns:
        ids with `IMAGE` sentinels; labels, `IGNORE` but at what the assistant says.

    Raises:
        DataError: another number of image marks than images.
    """
    form = find_template(template)
    ids = _opening(form, coder)
    labels = [IGNORE] * len(ids)
    for turn in turns:
        if turn["from"] == "human":
            part = encode_text(_human(turn["value"], form), coder)
            part += encode_text(form.answer, coder)
            ids += part
            labels += [IGNORE] * len(part)
        else:
            part = coder.encode(turn["value"])
            part += coder.encode(form.end) if form.end else [coder.end_id]
            rest = encode_text(form.after, coder)
            ids += part + rest
            labels += part + [IGNORE] * len(rest)
    check_images(ids, given, where)
    return ids, labels


def encode_prompt(
    text: str, coder: Coder, template: str | Template, given: int, where: str = "prompt"
) -> list[int]:
    """Return the ids of a question, up to where the answer begins.

    Args:
        text: the question; without any `<image>` the images are put before it.
        coder: the language model's tokenizer.
        template: a key of `TEMPLATES`, or one.
        given: images that go with it.
        where: what to call it in errors.

    Raises:
        DataError: another number of image marks than images.
    """
    form = find_template(template)
    if MARK not in text:
        text = MARK * given + ("\n" if given and text else "") + text
    ids = _opening(form, coder)
    ids += encode_text(_human(text, form), coder) + encode_text(form.answer, coder)
    check_images(ids, given, where)
    return ids


def find_template(template: str | Template) -> Template:
    """Return a template by name, or the one that is given."""
    if isinstance(template, Template):
        return template
    check_choice(template, TEMPLATES, "template")
    return TEMPLATES[template]


def end_ids(coder: Coder, template: str | Template) -> tuple[int, ...]:
    """Return the tokens that end an answer."""
    form = find_template(template)
    found = coder.encode(form.end) if form.end else []
    return tuple(dict.fromkeys([*found[-1:], coder.end_id]))
