#!/usr/bin/env bash
# Transformers 5.23.0, apply_chat_template(..., return_assistant_tokens_mask=True), a tokenizer whose
# byte-level post-processor has trim_offsets (its default).
#
# Good guess: the mask covers what stands between the template's generation markers, whatever the
#   tokenizer says of blanks; tokenizers with equal ids give equal masks.
# Behaviour: where an answer begins with a blank, no token claims its first character, and the loop
#   over the places of the conversation ends there: that answer and all after it have no 1 in the
#   mask, without a word. The same tokenizer with trim_offsets off has them.
# Who meets it: whoever trains on the assistant's tokens only. One answer with a leading space or line
#   break takes the loss of the rest of its conversation away.
# Output seen (tokens in the mask, of three answers of 4 tokens each and their ends):
#   answers without blanks      trim_offsets True  12    trim_offsets False  12
#   the second has one          trim_offsets True  4     trim_offsets False  13
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q transformers==5.23.0 tokenizers==0.23.3 huggingface_hub==2.4.0 numpy==2.4.6 jinja2==3.1.6
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY' 2>/dev/null
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def masked(trims, answers):
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.ByteLevel(trim_offsets=trims)
    marks = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=marks)
    tokenizer.chat_template = TEMPLATE
    turns = [
        turn
        for answer in answers
        for turn in ({"role": "user", "content": "hi"}, {"role": "assistant", "content": answer})
    ]
    made = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return made["input_ids"], sum(made["assistant_masks"])


seen = {}
for name, answers in (("answers without blanks", ["one"] * 3), ("the second has one", ["one", " one", "one"])):
    (ids, trimmed), (same, whole) = masked(True, answers), masked(False, answers)
    assert ids == same
    seen[name] = (trimmed, whole)
    print(f"{name:<28}trim_offsets True  {trimmed:<6}trim_offsets False  {whole}")
if seen != {"answers without blanks": (12, 12), "the second has one": (4, 13)}:
    sys.exit("changed: the masks are others than this script says")
PY
