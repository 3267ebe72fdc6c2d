"""Rows to tokens: what is read, what takes the loss, and what a chat template may do wrong."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from curate.errors import ModelError
from curate.sources import long_rows, tokenizing
from curate.sources.base import PoolConfig
from curate.sources.tokens import Tokens

CORPUS = ["the cat sat on the mat", "a dog ate the food", "<|user|> what is it? <|assistant|> it is a cat"] * 3
CHAT = (
    "{% for turn in messages %}<|{{ turn.role }}|>\n{{ turn.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WITHOUT_PROMPT = "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }} {% endfor %}"
FORGETFUL = "{% for turn in messages %}{% if loop.last %}[last] {% endif %}{{ turn.content }} {% endfor %}"
CONVERSATION = [
    {"role": "user", "content": "what is it?"},
    {"role": "assistant", "content": "it is a cat"},
    {"role": "user", "content": "and the dog? 🐕"},
    {"role": "assistant", "content": "the dög ate the food 🐕"},
]


def make_tokenizer(*, bos: bool = True, template: str | None = CHAT) -> PreTrainedTokenizerFast:
    specials = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    return fast


def tokenize(table: pa.Table, config: PoolConfig, tokenizer: PreTrainedTokenizerFast, **how) -> list[Tokens | None]:
    return tokenizing.tokenize(table, config, tokenizer, **how).rows


def reasons(table: pa.Table, config: PoolConfig, tokenizer: PreTrainedTokenizerFast, **how) -> list[str | None]:
    return tokenizing.tokenize(table, config, tokenizer, **how).reasons


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def lossy(tokens: Tokens | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The text of the tokens that take the loss."""
    assert tokens is not None
    return tokenizer.decode([token for token, loss in zip(tokens.ids, tokens.loss, strict=True) if loss])


def test_plain_text_takes_the_loss_on_all_but_the_first_token_and_ends_once(tokenizer):
    table = pa.table({"text": ["the cat sat", "a dog</s>", "<s>a dog"]})
    found = tokenize(table, PoolConfig(path="x"), tokenizer, max_tokens=99)
    for tokens, text in zip(found, ["the cat sat", "a dog", "a dog"], strict=True):
        ids = [0, *tokenizer(text, add_special_tokens=False)["input_ids"], 1]
        assert tokens == Tokens(ids, [False] + [True] * (len(ids) - 1), len(ids))
        assert lossy(tokens, tokenizer) == text + "</s>"


def test_a_tokenizer_that_ends_texts_itself_ends_them_once():
    """As `add_eos_token` does: neither twice, nor between a prompt and its completion."""
    tokenizer = make_tokenizer()
    both = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.backend_tokenizer.post_processor = both
    for text in ("the cat", "the cat</s>", "<s>the cat</s>"):
        (tokens,) = tokenize(pa.table({"text": [text]}), PoolConfig(path="x"), tokenizer, max_tokens=99)
        assert tokenizer.decode(tokens.ids) == "<s>the cat</s>"
    table = pa.table({"q": ["the cat"], "a": [" sat on the mat"]})
    (tokens,) = tokenize(table, PoolConfig(path="x", prompt="q", completion="a"), tokenizer, max_tokens=99)
    assert tokenizer.decode(tokens.ids) == "<s>the cat sat on the mat</s>"
    assert lossy(tokens, tokenizer) == " sat on the mat</s>"
    (tokens,) = tokenize(pa.table({"text": ["the cat"]}), PoolConfig(path="x", max_chars=5), tokenizer, max_tokens=99)
    assert tokenizer.decode(tokens.ids) == "<s>the c"


def test_prompt_and_completion_are_cut_as_one_text(tokenizer):
    """A word that goes on from the prompt into the completion is one token, and takes the loss."""
    table = pa.table({"q": ["the foo"], "a": ["d"]})
    (tokens,) = tokenize(table, PoolConfig(path="x", prompt="q", completion="a"), tokenizer, max_tokens=99)
    assert tokens.ids == tokenizer("the food</s>")["input_ids"]
    assert lossy(tokens, tokenizer) == " food</s>"


@pytest.mark.parametrize("trims", [True, False])
def test_blanks_take_the_loss_whatever_a_tokenizer_says_of_their_places(trims):
    tokenizer = make_tokenizer(bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trims)
    turns = [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "  it \n\n is   a cat"}]
    table = pa.table({"messages": [turns]})
    (tokens,) = tokenize(table, PoolConfig(path="x", messages="messages"), tokenizer, max_tokens=999)
    assert lossy(tokens, tokenizer) == "  it \n\n is   a cat<|end|>\n"


def test_of_a_long_row_its_beginning_both_ends_or_all_pieces_are_read(tokenizer):
    text = "the cat sat on the mat a dog ate the food " * 20
    table, config = pa.table({"text": [text]}), PoolConfig(path="x")
    whole = tokenize(table, config, tokenizer, max_tokens=10_000)[0]
    n = len(whole.ids)
    (cut,) = tokenize(table, config, tokenizer, max_tokens=9)
    assert (cut.ids, cut.whole) == (whole.ids[:9], n)
    (ends,) = tokenize(table, config, tokenizer, max_tokens=9, long_rows="ends")
    assert (ends.ids, ends.whole) == (whole.ids[:5] + whole.ids[-4:], n)
    assert ends.loss == [False, True, True, True, True, False, True, True, True]
    (chunks,) = tokenize(table, config, tokenizer, max_tokens=9, long_rows="chunks")
    assert chunks.ids == whole.ids
    pieces = long_rows.pieces([None, chunks], 9)
    assert all(len(piece.ids) <= 9 for piece in pieces.tokens)
    assert set(pieces.rows.tolist()) == {1}
    predicted = [
        (start + place, token)
        for start, piece in zip(pieces.starts.tolist(), pieces.tokens, strict=True)
        for place, (token, loss) in enumerate(zip(piece.ids, piece.loss, strict=True))
        if loss
    ]
    assert predicted == list(enumerate(whole.ids))[1:]  # every token but the first, once


def test_characters_beyond_max_chars_count_as_tokens_that_are_not_read(tokenizer):
    (tokens,) = tokenize(
        pa.table({"text": ["ab " * 1000]}), PoolConfig(path="x", max_chars=30), tokenizer, max_tokens=999
    )
    assert tokens.whole == pytest.approx(100 * len(tokens.ids), rel=0.02)


def test_one_row_that_the_template_refuses_costs_one_row():
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
    )
    rows = [CONVERSATION, [{"role": "system", "content": "x"}, *CONVERSATION], CONVERSATION]
    config, tokenizer = PoolConfig(path="x", messages="messages"), make_tokenizer(template=template)
    found = reasons(pa.table({"messages": rows}), config, tokenizer, max_tokens=999)
    assert found == [None, "the chat template refuses it: System role not supported", None]


def test_only_the_completion_and_its_end_take_the_loss(tokenizer):
    table = pa.table({"q": ["the cat"], "a": [" sat on the mat"]})
    (tokens,) = tokenize(table, PoolConfig(path="x", prompt="q", completion="a"), tokenizer, max_tokens=99)
    assert lossy(tokens, tokenizer) == " sat on the mat</s>"
    assert tokenizer.decode(tokens.ids) == "<s>the cat sat on the mat</s>"


def test_only_what_the_assistant_wrote_takes_the_loss(tokenizer):
    table = pa.table({"messages": [CONVERSATION]})
    (tokens,) = tokenize(table, PoolConfig(path="x", messages="messages"), tokenizer, max_tokens=999)
    assert lossy(tokens, tokenizer) == "it is a cat<|end|>\nthe dög ate the food 🐕<|end|>\n"
    assert tokenizer.decode(tokens.ids) == tokenizer.apply_chat_template(CONVERSATION, tokenize=False)


def test_a_template_without_a_generation_prompt_works_too():
    tokenizer = make_tokenizer(template=WITHOUT_PROMPT)
    table = pa.table({"messages": [CONVERSATION[:2]]})
    (tokens,) = tokenize(table, PoolConfig(path="x", messages="messages"), tokenizer, max_tokens=999)
    assert lossy(tokens, tokenizer).strip() == "[assistant] it is a cat"


WORDS = st.text(alphabet="abc é🐕\n", min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(contents=st.lists(WORDS, min_size=2, max_size=6))
def test_the_loss_covers_the_assistants_turns_exactly_for_any_text(contents):
    """The oracle writes the conversation down by hand."""
    tokenizer = make_tokenizer()
    roles = ["user", "assistant"] * 3
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    table = pa.table({"messages": [turns]})
    (tokens,) = tokenize(table, PoolConfig(path="x", messages="messages"), tokenizer, max_tokens=10_000)
    expected = "".join(f"{turn['content']}<|end|>\n" for turn in turns if turn["role"] == "assistant")
    assert lossy(tokens, tokenizer) == expected


def test_null_keys_that_arrow_adds_are_not_shown_to_the_template():
    """Arrow gives every turn the keys of all turns; a template that asks `is defined` would see them."""
    tokenizer = make_tokenizer(
        template="{% for turn in messages %}{{ turn.keys() | list }}{{ turn.content }}{% endfor %}"
    )
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": "me"}]
    table = pa.table({"messages": [turns]})
    config = PoolConfig(path="x", messages="messages")
    (tokens,) = tokenize(table, config, tokenizer, max_tokens=999)
    assert tokenizer.decode(tokens.ids) == "['role', 'content']a['role', 'content', 'name']b"


def test_rows_without_text_or_without_a_token_to_predict_get_none(tokenizer):
    table = pa.table({"q": ["the cat", None, "the cat sat on"], "a": ["sat", "sat", "the mat"]})
    found = tokenize(table, PoolConfig(path="x", prompt="q", completion="a"), tokenizer, max_tokens=4)
    assert [tokens is None for tokens in found] == [False, True, True]
    why = reasons(table, PoolConfig(path="x", prompt="q", completion="a"), tokenizer, max_tokens=4)
    assert why == [None, 'column "q": null', "no token to predict within max_tokens"]
    assert len(found[0].ids) == len(found[0].loss) == 4
    assert tokenize(pa.table({"text": ["the"]}), PoolConfig(path="x"), make_tokenizer(bos=False), max_tokens=1) == [
        None
    ]
    assert tokenize(pa.table({"text": pa.nulls(2)}), PoolConfig(path="x"), tokenizer, max_tokens=9) == [None, None]
    empty = pa.table({"messages": pa.array([], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))})
    assert tokenize(empty, PoolConfig(path="x", messages="messages"), tokenizer, max_tokens=9) == []


def test_tokens_of_a_row_do_not_depend_on_its_neighbours(tokenizer):
    texts = ["the cat", "a dog ate the food " * 9, "x", "🐕"]
    whole = tokenize(pa.table({"text": texts}), PoolConfig(path="x"), tokenizer, max_tokens=20)
    alone = [tokenize(pa.table({"text": [text]}), PoolConfig(path="x"), tokenizer, max_tokens=20)[0] for text in texts]
    assert whole == alone


def test_text_is_cut_at_max_chars_for_tokens_only(tokenizer):
    config = PoolConfig(path="x", max_chars=7)
    assert (
        lossy(tokenize(pa.table({"text": ["the cat sat"]}), config, tokenizer, max_tokens=99)[0], tokenizer)
        == "the cat"
    )


def test_chat_without_a_usable_template_is_a_model_error():
    table, config = pa.table({"messages": [CONVERSATION]}), PoolConfig(path="x", messages="messages")
    for template, message in ((None, "no chat template"), ("{% for", "a chat template that is broken")):
        with pytest.raises(ModelError, match=message):
            tokenize(table, config, make_tokenizer(template=template), max_tokens=99)


def test_a_template_that_refuses_a_conversation_is_a_reason_of_the_row():
    table, config = pa.table({"messages": [CONVERSATION]}), PoolConfig(path="x", messages="messages")
    for template in ("{{ raise_exception('roles must alternate') }}", "{{ messages.__class__.__mro__ }}"):
        (why,) = reasons(table, config, make_tokenizer(template=template), max_tokens=99)
        assert why is not None
        assert why.startswith("the chat template refuses it: ")


def test_a_template_that_writes_more_into_the_last_turn_is_read_as_it_is():
    (tokens,) = tokenize(
        pa.table({"messages": [CONVERSATION]}),
        PoolConfig(path="x", messages="messages"),
        tokenizer := make_tokenizer(template=FORGETFUL),
        max_tokens=999,
    )
    assert "it is a cat" in lossy(tokens, tokenizer)
    assert "the dög ate the food 🐕" in lossy(tokens, tokenizer)
