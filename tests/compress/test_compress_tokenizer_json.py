"""The portable tokenizer file gives the very ids that the model was trained with."""

import pytest
from tokenizers import Tokenizer

from understudy.compress.tokenizer_json import portable_json
from understudy.core.errors import ModelError
from understudy.models.text.tokenizer import ClipTokenizer
from understudy.models.text.train_tokenizer import train_bpe, train_words

CAPTIONS = ["a large 3", "a small 7 left of the 3", "7", "3 " * 40]


@pytest.mark.parametrize("clean", ["clip", "lower", "whitespace"])
def test_byte_pair_tokenizers(clean):
    tokenizer = train_bpe(CAPTIONS * 3, 600, context_length=12, clean=clean)
    backend = Tokenizer.from_str(portable_json(tokenizer))
    texts = ["A large 3, don't!", "ünïcode ✓ 7", " two\n lines ", "word " * 30]
    assert [backend.encode(t).ids for t in texts] == tokenizer(texts).tolist()
    # the probes of portable_json are not counted
    assert tokenizer.num_truncated == 2


def test_file_is_read_back_as_a_vocabulary(tmp_path):
    tokenizer = train_bpe(CAPTIONS * 3, 600, context_length=12, clean="clip")
    path = tmp_path / "tokenizer.json"
    path.write_text(portable_json(tokenizer), encoding="utf-8")
    again = ClipTokenizer(path, context_length=12)
    assert again.vocab_size == tokenizer.vocab_size
    assert again(CAPTIONS).tolist() == tokenizer(CAPTIONS).tolist()


def test_bad_input_tokenizer_that_cannot_be_written():
    # one that cuts what the file keeps
    tokenizer = train_words(CAPTIONS, context_length=24)
    tokenizer.encode = tokenizer._encode = lambda texts: [[2, 2] for _ in texts]
    with pytest.raises(ModelError, match=r"tokenizer.json: 'a photo of a cat' gives"):
        portable_json(tokenizer)
