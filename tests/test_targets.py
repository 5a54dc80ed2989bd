import pytest

import semhub_utils as sh
from semhub_utils.targets import read_targets


def ids_of(lm, targets, n=1):
    return [[i for i in row if i >= 0] for row in read_targets(lm, targets, n)[0].ids.tolist()]


def first(lm, text):
    return lm.tokenizer(text, add_special_tokens=False).input_ids[0]


@pytest.mark.parametrize("word", ["dog", " dog", "  dog ", "dog\n"])
def test_a_word_is_read_with_and_without_a_leading_space_however_it_is_given(gpt2, word):
    assert ids_of(gpt2, {"en": word}) == [[first(gpt2, " dog"), first(gpt2, "dog")]]


def test_spellings_with_one_first_token_count_once(llama):
    assert first(llama, " dog") == first(llama, "dog")
    assert ids_of(llama, {"en": "dog"}) == [[first(llama, "dog")]]


def test_a_number_is_a_token_and_has_no_second_spelling(lm):
    found = read_targets(lm, {"a": 0, "b": 300}, 1)[0]
    assert found.ids.tolist() == [[0, -1], [300, -1]]
    assert found.whole == [True, True]
    assert found.tokens == lm.token_text([0, 300])


def test_a_word_of_several_tokens_is_scored_on_its_first_and_says_so(gpt2):
    word = "dogmatically"
    assert all(len(gpt2.tokenizer(s).input_ids) > 1 for s in (word, " " + word))
    found = read_targets(gpt2, {"long": word, "short": " dog"}, 1)[0]
    assert found.ids[0].tolist() == [first(gpt2, " " + word), first(gpt2, word)]
    assert found.whole == [False, True]


def test_targets_that_share_a_first_token_are_flagged_and_others_are_not(gpt2):
    found = read_targets(gpt2, {"a": "dog", "b": "dogs", "c": "cat", "d": 300}, 1)[0]
    assert found.labels == ["a", "b", "c", "d"]
    assert found.shared == [True, True, False, False]


def test_a_number_shares_with_the_word_that_it_begins(gpt2):
    found = read_targets(gpt2, {"word": "dog", "id": first(gpt2, " dog")}, 1)[0]
    assert found.shared == [True, True]


def test_the_frame_of_a_lens_carries_the_flags(gpt2):
    frame = sh.logit_lens(gpt2, "The", {"a": "dog", "b": "dogs", "c": "cat"})
    flags = frame[frame.layer == 0].set_index("target")
    assert flags.shared.to_dict() == {"a": True, "b": True, "c": False}
    assert bool(flags.whole["a"])
    assert flags.token["a"] == " dog | " + gpt2.token_text([first(gpt2, "dog")])[0]


def test_a_bare_space_before_chinese_is_not_used(embedded_lm):
    lm = embedded_lm
    spaced = lm.tokenizer(" 狗", add_special_tokens=False).input_ids
    assert lm.token_text(spaced[:1]) == [" "], "this model writes a space token before Chinese"
    assert ids_of(lm, {"zh": " 狗", "same": "狗"}) == [[first(lm, "狗")]] * 2
    found = read_targets(lm, {"en": " dog", "zh": "狗"}, 1)[0]
    assert found.tokens == [" dog | dog", "狗"]
    assert found.whole == [True, True]
    assert found.shared == [False, False]


def test_a_blank_token_that_the_tokenizer_itself_puts_first_is_skipped(llama):
    """Llama 2 writes 狗 as '▁' and '狗': the word is the second token, which the model predicts after Chinese."""
    tokens = llama.tokenizer.convert_ids_to_tokens(llama.tokenizer("狗", add_special_tokens=False).input_ids)
    assert tokens == ["▁", "狗"]
    assert ids_of(llama, {"zh": "狗"}) == [[llama.tokenizer.convert_tokens_to_ids("狗")]]


def test_an_unknown_token_stands_for_no_word(tokenizer_of, llama):
    tokenizer = tokenizer_of("metaspace", True, False, "right")
    inner = tokenizer.backend_tokenizer
    inner.model.byte_fallback = False
    lm = sh.LanguageModel(llama.model, tokenizer, llama.spec)
    assert first(lm, "ᚠ") in (lm.tokenizer.unk_token_id, lm.tokenizer.convert_tokens_to_ids("▁"))
    with pytest.raises(ValueError, match=r"target 'rune' is 'ᚠ', which tiny-llama has no token for: give another"):
        read_targets(lm, {"rune": "ᚠ"}, 1)


def test_a_target_that_is_no_token_is_named_with_its_label(lm):
    for wrong in ("", "   ", "\n"):
        with pytest.raises(ValueError, match=r"target 'en' is '.*', which is no token: give a word or a token id") as e:
            sh.logit_lens(lm, "dog", {"zh": 5, "en": wrong})
        assert repr(wrong) in str(e.value)


def test_a_number_that_is_no_token_is_named_with_the_range(lm):
    size = lm.model.config.vocab_size
    for wrong in (-1, size, 10**9):
        with pytest.raises(ValueError, match=rf"target 'x' is token {wrong}: tiny-.* has tokens 0 to {size - 1}"):
            sh.logit_lens(lm, "dog", {"x": wrong})


def test_a_truth_value_is_no_token(lm):
    with pytest.raises(ValueError, match="target 'x' is True, which is no token"):
        read_targets(lm, {"x": True}, 1)


def test_no_targets_at_all_is_an_error_with_an_example(lm):
    with pytest.raises(ValueError, match=r"targets is empty: give at least one, such as \{'en': ' dog'\}"):
        sh.logit_lens(lm, "dog", {})
    with pytest.raises(ValueError, match="targets is empty"):
        sh.logit_lens(lm, ["dog", "cat"], [{}, {}])


def test_the_number_of_dicts_is_the_number_of_texts(lm):
    with pytest.raises(ValueError, match="3 dicts of targets for 2 texts: give one dict a text, or one for all"):
        sh.logit_lens(lm, ["dog", "cat"], [{"a": 1}] * 3)
    with pytest.raises(ValueError, match="0 dicts of targets for 1 texts"):
        sh.logit_lens(lm, "dog", [])


def test_dicts_of_different_size_are_named(lm):
    with pytest.raises(ValueError, match=r"dicts of targets hold \[1, 2\] words: give every text the same number"):
        sh.logit_lens(lm, ["dog", "cat"], [{"a": 1}, {"a": 1, "b": 2}])


def test_one_dict_serves_every_text(lm):
    found = read_targets(lm, {"a": 1}, 3)
    assert [one.ids.tolist() for one in found] == [[[1, -1]]] * 3
