"""The measures of steering, against whole distributions, transformers' own loss and closed forms."""

import math

import pytest
import torch
import transformers

import semhub_utils as sh
from semhub_utils.data.sentences import bare, sentences
from semhub_utils.measures import odds_of, word_ids

PROMPTS = ["The dog and the cat", "Die Katze", "El perro y el gato ven", "法国的首都是"]
AFTER = [" see a bird", " und der Hund im Wasser", " un", "巴黎。"]


def test_log_odds_are_those_of_the_whole_distribution(lm):
    good, bad = ["dog", "bird", "water"], ["gato", "狗"]
    found = sh.log_odds(lm, PROMPTS, good, bad, batch_size=3)
    for row, text in enumerate(PROMPTS):
        p = lm(text).logits[0, -1].double().softmax(-1)
        sides = [sum(p[i] for i in {int(i) for i in side if i >= 0}) for side in word_ids(lm, [(good, bad)])[0]]
        assert float(found[row]) == pytest.approx(math.log(sides[0] / sides[1]), abs=1e-4)
    swapped = sh.log_odds(lm, PROMPTS, bad, good)
    torch.testing.assert_close(swapped, -found, atol=1e-4, rtol=1e-4)


def test_log_odds_of_capped_and_scaled_heads(unusual):
    good, bad = ["dog"], ["gato", "狗"]
    ids = word_ids(unusual, [(good, bad)])[0]
    logits = unusual(PROMPTS[0]).logits[0, -1].double()
    expected = logits[ids[0][ids[0] >= 0].unique()].logsumexp(0) - logits[ids[1][ids[1] >= 0].unique()].logsumexp(0)
    assert float(sh.log_odds(unusual, PROMPTS[0], good, bad)) == pytest.approx(float(expected), abs=1e-4)


def test_both_spellings_of_a_word_count_once_each(gpt2):
    (ids,) = word_ids(gpt2, [(["dog", "dog"], ["cat"])])
    for side, word in zip(ids, ("dog", "cat"), strict=True):
        expected = {gpt2.tokenizer(s, add_special_tokens=False).input_ids[0] for s in (word, " " + word)}
        assert sorted(i for i in side.tolist() if i >= 0) == sorted(expected)


def test_log_odds_are_steered(lm):
    vector = sh.steering_vector(lm, ["the dog"], ["the cat"], 2)
    with sh.steer(lm, vector, 0.5):
        inside = sh.log_odds(lm, PROMPTS, ["dog"], ["gato"])
        p = lm(PROMPTS[0]).logits[0, -1].double().log_softmax(-1)
    ids = word_ids(lm, [(["dog"], ["gato"])])[0]
    sides = [p[side[side >= 0].unique()].logsumexp(0) for side in ids]
    assert float(inside[0]) == pytest.approx(float(sides[0] - sides[1]), abs=1e-4)
    assert not torch.allclose(inside, sh.log_odds(lm, PROMPTS, ["dog"], ["gato"]), atol=1e-3)


def test_one_pair_of_words_a_text(llama):
    pairs = [(["dog"], ["gato"]), (["bird", "water"], ["Hund"])]
    states = sh.hidden_states(llama, PROMPTS[:2])[:, -1]
    together = odds_of(llama, states, word_ids(llama, pairs))
    alone = [float(sh.log_odds(llama, text, *pair)) for text, pair in zip(PROMPTS, pairs, strict=False)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_log_loss_is_the_loss_that_transformers_computes(lm):
    found = sh.log_loss(lm, PROMPTS, AFTER, batch_size=3)
    for row, (before, after) in enumerate(zip(PROMPTS, AFTER, strict=True)):
        alone, both = lm.token_ids([before])[0], lm.token_ids([before + after])[0]
        start = next(i for i in range(len(both)) if both[: i + 1] != alone[: i + 1])
        ids = torch.tensor([both])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            assert float(found[row]) == pytest.approx(float(lm.model(input_ids=ids, labels=labels).loss), abs=1e-4)


def test_log_loss_of_capped_and_scaled_heads(unusual):
    start = len(unusual.token_ids(PROMPTS[:1])[0])
    ids = unusual.token_ids([PROMPTS[0] + AFTER[0]])[0]
    logp = unusual(PROMPTS[0] + AFTER[0]).logits[0].double().log_softmax(-1)
    expected = -sum(logp[at - 1, ids[at]] for at in range(start, len(ids))) / (len(ids) - start)
    assert float(sh.log_loss(unusual, PROMPTS[:1], AFTER[:1])) == pytest.approx(float(expected), abs=1e-4)


def test_log_loss_of_nothing_is_no_number(llama):
    found = sh.log_loss(llama, PROMPTS[:2], [" see", ""])
    assert torch.isfinite(found[0])
    assert torch.isnan(found[1])


def test_relevance_is_a_centred_cosine(lm):
    texts, others = [PROMPTS[0], PROMPTS[2], AFTER[1]], [PROMPTS[0], AFTER[0], PROMPTS[1]]
    found = sh.relevance(lm, texts, others, 2)
    states = sh.hidden_states(lm, texts + others, "mean")[:, 2].double()
    a, b = states[:3] - states[3:].mean(0), states[3:] - states[3:].mean(0)
    expected = (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert float(found[0]) == pytest.approx(1, abs=1e-5)


def test_a_sentence_is_read_in_its_language():
    table = sentences(["en", "es", "fr", "de", "zh", "hi"])
    for language in ("en", "es", "fr", "de", "zh", "hi"):
        texts = [bare(text) for text in table[language]]
        told = sh.identify(texts, among=["en", "es", "fr", "de", "zh", "hi"])
        assert sum(code == language for code in told) / len(texts) > 0.99
        shuffled = sh.identify(["".join(sorted(text)) for text in texts], among=["en", "es", "fr", "de"])
        assert language in ("zh", "hi") or sum(code == language for code in shuffled) / len(texts) < 0.9
    assert sh.identify(["1 + 1 = 2", "", "Der Hund schläft im Garten"]) == ["", "", "de"]


def test_a_first_token_that_both_sides_have_is_left_out(llama):
    alone = sh.log_odds(llama, "The dog", ["cat"], ["bird"])
    torch.testing.assert_close(sh.log_odds(llama, "The dog", ["cat", "dog"], ["bird", "dog"]), alone)


@pytest.fixture
def classifier(tokenizer_of, tmp_path):
    """A tiny random classifier in a folder, with labels of one's own."""

    def make(labels):
        tokenizer = tokenizer_of("bytes", True, True, "right")
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer), id2label=dict(enumerate(labels)), initializer_range=0.5, **sizes
        )
        transformers.BertForSequenceClassification(config).eval().save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return make


def test_sentiment_is_positive_minus_negative(classifier):
    folder = classifier(["Negative", "neutral", "POSITIVE"])
    found = sh.sentiment(PROMPTS, folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for text, value in zip(PROMPTS, found, strict=True):
            p = model(input_ids=torch.tensor([tokenizer(text).input_ids])).logits[0].softmax(-1)
            assert float(value) == pytest.approx(float(p[2] - p[0]), abs=1e-4)
    assert found.unique().numel() == len(PROMPTS)


def test_a_classifier_without_sentiment_is_refused(classifier):
    with pytest.raises(ValueError, match="has the labels 1 star, 2 stars, 3 stars: give a classifier with one pos"):
        sh.sentiment(PROMPTS, classifier(["1 star", "2 stars", "3 stars"]))


def test_bad_input_is_named(llama, untyped):
    odds = untyped(sh.log_odds)
    with pytest.raises(ValueError, match="neither of them empty"):
        odds(llama, PROMPTS, ["dog"], [])
    with pytest.raises(ValueError, match="'dog' and 'dog' begin with the same token in tiny-llama"):
        odds(llama, PROMPTS, ["dog"], ["dog", "cat"])
    with pytest.raises(ValueError, match=r"is the str 'dog': give a list of words, such as \['dog'\]"):
        odds(llama, PROMPTS, "dog", ["cat"])
    with pytest.raises(ValueError, match="1 continuations of 4 prompts"):
        untyped(sh.log_loss)(llama, PROMPTS, [" a"])
    with pytest.raises(ValueError, match="1 texts and 1 others: give two or more"):
        untyped(sh.relevance)(llama, ["a"], ["b"], 1)
    with pytest.raises(ValueError, match=r"does not know \['xx'\]: it knows "):
        sh.identify(["a dog"], among=["en", "xx"])
