"""p(language | token) from word lists, and the language-mass lens that weighs the lens's probabilities with it."""

import copy
import unicodedata
import warnings
from functools import cache as cached

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
import wordfreq
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import semhub_utils as sh
from semhub_utils import vocabulary
from semhub_utils.vocabulary import token_languages
from test_lens import TEXTS, exact_logits

# Frequencies as wordfreq gives them; the tokens of the hand-made tokenizer are letters with the space before them.
LISTS = {"en": {"ab": 0.6, "b": 0.3, "d": 0.1}, "de": {"a": 0.5}, "zh": {"字a": 0.4}, "hi": {"d": 0.01}}
TOKENS = ["<unk>", " a", "a", " A", "A", " b", "b", " B", "B", "字", " 字", " d", " D"]


def of_letters(character):
    return unicodedata.category(character)[0] in "LM"


def again(lm):
    """The same model under a new name, for which no word has been cut yet."""
    return sh.LanguageModel(lm.model, lm.tokenizer, lm.spec)


@pytest.fixture
def lists(monkeypatch):
    own = copy.deepcopy(LISTS)
    monkeypatch.setattr(wordfreq, "get_frequency_dict", cached(own.__getitem__))
    monkeypatch.setattr(wordfreq, "available_languages", lambda *rest, **more: dict.fromkeys(own, ""))
    return own


@pytest.fixture
def letters():
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\S"), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(TOKENS) + 3, n_embd=8, n_layer=2, n_head=2, n_positions=32)
    return sh.LanguageModel(transformers.GPT2LMHeadModel(config), tokenizer, sh.ModelSpec("letters", "made here"))


@pytest.fixture
def random_table(monkeypatch):
    """Any table over the vocabulary in place of that of words: (languages, table)."""

    def put(lm, languages=("en", "ru", "zh"), seed=0):
        size = lm.model.config.vocab_size
        rng = np.random.default_rng(seed)
        table = rng.dirichlet([0.3] * len(languages), size) * (rng.random((size, 1)) > 0.2)
        table = torch.from_numpy(table).float()
        monkeypatch.setattr(vocabulary, "token_languages", lambda lm, given: (list(languages), table))
        return table

    return put


def test_the_table_is_the_one_worked_out_by_hand(lists, letters):
    # en without "d" (two words): " ab" and " Ab" weigh 0.3 each, " b" and " B" 0.15 each; the sum over tokens is 1.5.
    # p(token | en): " a" 0.2, "b" 0.4, " A" 0.2, " b" 0.1, " B" 0.1; p(token | de): " a" 0.5, " A" 0.5;
    # p(token | zh), which has no spaces and no capitals: "字" 0.5, "a" 0.5.
    there, table = token_languages(letters, ["en", "de", "zh"], words=2)
    assert there == ["en", "de", "zh"]
    expected = torch.zeros(len(TOKENS) + 3, 3)
    for token in (" a", " A"):
        expected[TOKENS.index(token)] = torch.tensor([2 / 7, 5 / 7, 0])
    for token in ("b", " b", " B"):
        expected[TOKENS.index(token), 0] = 1
    for token in ("字", "a"):
        expected[TOKENS.index(token), 2] = 1
    assert table.dtype == torch.float32
    assert torch.allclose(table, expected, rtol=0, atol=1e-7)


def test_only_the_most_frequent_words_count_and_all_where_the_list_is_shorter(lists, letters):
    assert token_languages(letters, ["en"], words=1)[1].sum() == 3
    assert token_languages(letters, ["en"], words=2)[1].sum() == 5
    assert token_languages(letters, ["en"], words=3)[1].sum() == 7
    assert torch.equal(token_languages(letters, ["en"])[1], token_languages(letters, ["en"], words=3)[1])


def test_languages_are_equally_likely_whatever_their_frequencies_sum_to(lists, letters):
    one = token_languages(letters, ["en", "de", "hi"])[1]
    lists["de"] = {word: frequency / 1000 for word, frequency in lists["de"].items()}
    assert torch.allclose(one, token_languages(again(letters), ["en", "de", "hi"])[1], atol=1e-7)
    # " d" is 0.05 of 1.6 in en and half of hi.
    assert one[TOKENS.index(" d")].tolist() == pytest.approx([(1 / 32) / (17 / 32), 0, (1 / 2) / (17 / 32)])


def test_words_are_cut_once_for_a_model_and_anew_for_another(lists, letters, monkeypatch):
    one = token_languages(letters, ["en", "zh"])[1]
    lists["en"] = {"d": 1.0}
    assert torch.equal(token_languages(letters, ["en", "zh"])[1], one)
    assert not torch.equal(token_languages(again(letters), ["en", "zh"])[1], one)
    assert not torch.equal(token_languages(letters, ["en", "zh"], words=99)[1], one)


def test_every_token_has_probabilities_that_sum_to_1_or_0(lm):
    there, table = token_languages(lm, ["ru", "en", "zh", "hi", "de"], words=150)
    assert there == ["ru", "en", "zh", "hi", "de"]
    assert table.shape == (lm.model.config.vocab_size, 5)
    assert (table >= 0).all()
    total = table.sum(1)
    assert (((total - 1).abs() < 1e-6) | (total == 0)).all()
    assert (table.sum(0) > 0.5).all(), "every language has tokens, or parts of letters, of its own"
    assert (total[lm.tokenizer.all_special_ids] == 0).all()
    # Counted anew in plain Python.
    counts = {language: dict.fromkeys(range(len(table)), 0.0) for language in there}
    for language in there:
        frequencies = wordfreq.get_frequency_dict(language)
        frequencies = {w: f for w, f in frequencies.items() if all(of_letters(c) or c in "'’-" for c in w)}
        for word in sorted(frequencies, key=frequencies.get, reverse=True)[:150]:
            for spelling in (word, word.capitalize()):
                text = spelling if language == "zh" else f" {spelling}"
                for token in lm.tokenizer(text, add_special_tokens=False).input_ids:
                    counts[language][token] += frequencies[word]
    shares = np.array([list(counts[language].values()) for language in there]).T
    # A blank is of no language; a part of a letter, which decodes to "\ufffd", is of those whose words it is in.
    texts = lm.token_text(range(len(table)))
    shares[[not any(of_letters(c) or c == "\ufffd" for c in text) for text in texts]] = 0
    shares /= shares.sum(0)
    expected = np.divide(shares, shares.sum(1, keepdims=True), out=shares * 0, where=shares > 0)
    assert np.allclose(table, expected, rtol=0, atol=1e-6)


def test_a_blank_token_that_the_tokenizer_itself_puts_first_is_of_no_unspaced_language(lists, llama):
    """Llama writes 狗 alone as '▁' and '狗'; in a running text no '▁' comes before it (see test_targets)."""
    lists |= {"zh": {"狗": 1.0}, "en": {"dog": 1.0}}
    lm = again(llama)
    blank, dog = lm.tokenizer.convert_tokens_to_ids(["▁", "狗"])
    assert lm.tokenizer("狗", add_special_tokens=False).input_ids == [blank, dog]
    table = token_languages(lm, ["en", "zh"])[1]
    assert table[dog].tolist() == [0, 1]
    assert table[blank].tolist() == [0, 0]


def test_numbers_are_no_words_and_a_token_without_a_letter_is_of_no_language(lists, letters, llama):
    one = token_languages(letters, ["en", "de"], words=2)[1]
    lists["en"] |= {"7": 0.9, "b7": 0.8}
    assert torch.equal(token_languages(again(letters), ["en", "de"], words=2)[1], one)
    # Nor does a language that is left without any token take theirs from the others.
    lists |= {"zh": {"'": 1.0}, "en": {"dog": 1.0}}
    table = token_languages(again(llama), ["en", "zh"])[1]
    assert (table[:, 0] == 1).sum() == (table.sum(1) == 1).sum() > 0


def test_a_language_without_a_list_is_left_out_with_a_warning(letters):
    with pytest.warns(
        UserWarning, match=r"wordfreq has no words of sw, xx: no mass can be given to it.*'other'"
    ) as caught:
        there, table = token_languages(letters, ["sw", "en", "xx", "zh"], words=5)
    assert len(caught) == 1
    assert there == ["en", "zh"]
    assert table.shape[1] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token_languages(letters, ["en", "zh"], words=5)


def test_languages_and_words_that_give_no_table_are_named(letters, untyped):
    for languages in (["sw"], ["xx", "sw"], []):
        with pytest.raises(ValueError, match=r"languages is \[.*\]: wordfreq has ar, .*zh"):
            token_languages(letters, languages)
    with pytest.raises(ValueError, match=r"languages is \['en', 'zh', 'en'\]: name each once, or its mass is split"):
        token_languages(letters, ["en", "zh", "en"])
    for words in (0, -1, True, 2.5):
        with pytest.raises(ValueError, match=rf"words is {words!r}: give 1 or more words of each language \(20,000"):
            untyped(token_languages)(letters, ["en"], words)


def expect(lm, table, texts, places, norm):
    """{(text, layer): masses} in float64 from the full logits."""
    out = {}
    for i, text in enumerate(texts):
        probabilities = exact_logits(lm, text, norm).softmax(-1)
        chosen = probabilities[:, places] if places is not None else probabilities
        for layer, mass in enumerate((chosen @ table.double()).mean(1)):
            out[i, layer] = [*mass.tolist(), 1 - float(mass.sum())]
    return out


@pytest.mark.parametrize("norm", ["final", "none"])
@pytest.mark.parametrize("positions", ["last", "all", [0, -1], 0])
def test_every_mass_is_the_float64_statement(lm, random_table, norm, positions):
    table = random_table(lm)
    places = {"last": [-1], "all": None}.get(str(positions), positions if isinstance(positions, list) else [positions])
    frame = sh.language_mass(lm, TEXTS, ["en"], positions, norm, batch_size=3)
    expected = expect(lm, table, TEXTS, places, norm)
    assert list(frame.columns) == ["text", "layer", "language", "mass", "null_high"]
    keys = [(i, k, c) for i in range(4) for k in range(lm.n_layers + 1) for c in ("en", "ru", "zh", "other")]
    assert list(zip(frame.text, frame.layer, frame.language, strict=True)) == keys
    assert list(frame.index) == list(range(len(frame)))
    assert np.allclose(frame.mass, np.concatenate(list(expected.values())), rtol=0, atol=3e-5)
    assert np.allclose(frame.groupby(["text", "layer"]).mass.sum(), 1, rtol=0, atol=1e-6)
    assert frame.mass.between(-1e-6, 1 + 1e-6).all()


def test_masses_of_unusual_heads_are_the_float64_statement(unusual, random_table):
    table = random_table(unusual)
    frame = sh.language_mass(unusual, TEXTS[:2], ["en"], "all")
    expected = np.concatenate(list(expect(unusual, table, TEXTS[:2], None, "final").values()))
    assert np.allclose(frame.mass, expected, rtol=0, atol=3e-5)


def shuffled_the_slow_way(lm, order):
    """A copy of the model in which the row of token v of the unembedding has gone to token order[v], bias and all."""
    model = copy.deepcopy(lm.model)
    head = copy.deepcopy(model.get_output_embeddings())  # of its own, where it is tied to the embedding
    with torch.no_grad():
        for parameter in head.parameters():
            parameter[order] = parameter.clone()
    model.set_output_embeddings(head)
    return sh.LanguageModel(model, lm.tokenizer, lm.spec)


def check_control(model, table):
    """The 95% quantile over 20 deals of the mean over texts, each deal made in a model of its own."""
    generator = torch.Generator().manual_seed(5)
    means = []
    for _ in range(20):
        slow = shuffled_the_slow_way(model, torch.randperm(len(table), generator=generator))
        frame = sh.language_mass(slow, TEXTS, ["en"], [0, -1], shuffles=20)
        means.append(frame.groupby(["layer", "language"], sort=False).mass.mean())
    assert torch.equal(sh.hidden_states(slow, TEXTS), sh.hidden_states(model, TEXTS)), "only the lens may change"
    ours = sh.language_mass(model, TEXTS, ["en"], [0, -1], shuffles=20, seed=5)
    expected = np.quantile(np.stack(means), 0.95, axis=0)
    assert np.allclose(ours.null_high.to_numpy().reshape(len(TEXTS), -1), expected, rtol=0, atol=1e-5)
    other = sh.language_mass(model, TEXTS, ["en"], [0, -1], shuffles=20, seed=6)
    assert np.array_equal(other.mass, ours.mass)
    assert (other.null_high - ours.null_high).abs().max() > 1e-4
    pd.testing.assert_frame_equal(sh.language_mass(model, TEXTS, ["en"], [0, -1], shuffles=20, seed=5), ours)


def test_the_control_is_the_mass_under_an_unembedding_whose_rows_are_really_shuffled(lm, random_table):
    check_control(lm, random_table(lm))


def test_the_control_shuffles_the_bias_of_an_unusual_head_with_its_rows(unusual, random_table):
    check_control(unusual, random_table(unusual))


@settings(deadline=None, max_examples=20)
@given(pairs=st.sampled_from([1, 50, 999, 4001]), batch_size=st.integers(1, 5), place=st.sampled_from(["all", [-1, 0]]))
def test_neither_chunks_nor_batches_matter(llama, pairs, batch_size, place):
    table = torch.rand(llama.model.config.vocab_size, 2, generator=torch.Generator().manual_seed(1)) / 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "token_languages", lambda lm, given: (["en", "zh"], table))
        whole = sh.language_mass(llama, TEXTS, ["en"], place)
        patch.setattr(vocabulary, "_PAIRS", pairs)
        pd.testing.assert_frame_equal(
            whole, sh.language_mass(llama, TEXTS, ["en"], place, batch_size=batch_size), rtol=0, atol=1e-5
        )


def test_a_position_that_is_named_twice_counts_once(gpt2, random_table):
    random_table(gpt2)
    n = len(gpt2.token_ids("The dog")[0])
    once = sh.language_mass(gpt2, "The dog", ["en"], [0, -1])
    pd.testing.assert_frame_equal(sh.language_mass(gpt2, "The dog", ["en"], [0, n - 1, -1]), once, atol=1e-6)


def test_a_lens_refuses_what_the_logit_lens_refuses(letters, lists):
    with pytest.raises(ValueError, match=r"norm is 'last': give 'final' .* or 'none'"):
        sh.language_mass(letters, "ab", ["en"], norm="last")
    with pytest.raises(ValueError, match=r"position 9 is out of range: text 1 has 2 tokens"):
        sh.language_mass(letters, ["abababababab", "ab"], ["en"], positions=9)
    with pytest.raises(ValueError, match=r"positions is 'first'"):
        sh.language_mass(letters, "ab", ["en"], positions="first")
    with pytest.raises(ValueError, match=r"text 1 is empty"):
        sh.language_mass(letters, ["ab", ""], ["en"])
    with pytest.raises(ValueError, match=r"batch_size is 0: give 1 or more"):
        sh.language_mass(letters, "ab", ["en"], batch_size=0)
    with pytest.raises(ValueError, match=r"languages is \['xx'\]: wordfreq has de, en, hi, zh"):
        sh.language_mass(letters, "ab", ["xx"])
    for shuffles in (19, 0, -5, True):
        with pytest.raises(ValueError, match=rf"shuffles is {shuffles}: a 95% quantile needs at least 20"):
            sh.language_mass(letters, "ab", ["en"], shuffles=shuffles)


def test_the_embedded_model_ends_in_the_language_of_the_prompt(embedded_lm):
    texts = ["The weather was very nice, so we went to the", "Der Hund schläft im", "昨天天气很好，所以我们去了"]
    with pytest.warns(UserWarning, match="no words of sw"):
        frame = sh.language_mass(embedded_lm, texts, ["en", "de", "zh", "sw"])
    assert set(frame.language) == {"en", "de", "zh", "other"}
    last = frame[frame.layer == embedded_lm.n_layers].pivot(index="text", columns="language", values="mass")
    assert last.en[0] > 0.6
    assert last.drop(columns="other").idxmax(axis=1).tolist() == ["en", "de", "zh"]
    alone = sh.language_mass(embedded_lm, texts[0], ["en", "de", "zh"])
    english = alone[(alone.layer == embedded_lm.n_layers) & (alone.language == "en")].iloc[0]
    assert english.mass > english.null_high
