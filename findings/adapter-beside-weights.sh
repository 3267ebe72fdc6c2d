#!/usr/bin/env bash
# Transformers 5.23.0 with PEFT 0.21.2, AutoModelForCausalLM.from_pretrained(directory), a directory that holds a whole
# model (config.json, model.safetensors) and, beside it, an adapter saved into the same place.
#
# Good guess: the directory's own weights are loaded; whoever wants the adapter asks PEFT for it.
# Behaviour: the adapter is loaded too, without a word. The class is the model's own (no PeftModel), its parameters are
#   base_layer, lora_A and lora_B, and what it computes is the adapted model.
# Who meets it: whoever trained an adapter with the model's own directory as its output, and reads gradients or weights by
#   name, hashes model.safetensors as the model's identity, or compares with the model before training.
# Output seen:
#   LlamaForCausalLM
#   model.layers.0.self_attn.q_proj.base_layer.weight
#   model.layers.0.self_attn.q_proj.lora_A.default.weight
#   model.layers.0.self_attn.q_proj.lora_B.default.weight
#   the logits of the weights alone: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.13.0
venv/bin/pip install -q transformers==5.23.0 peft==0.21.2 tokenizers==0.23.3 huggingface_hub==2.4.0 numpy==2.4.6
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY' 2>/dev/null
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
ids = torch.arange(8)[None]
whole = LlamaForCausalLM(LlamaConfig(**size)).eval()
whole.save_pretrained("model")
alone = whole(input_ids=ids).logits
settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
get_peft_model(whole, settings).save_pretrained("model")

read = AutoModelForCausalLM.from_pretrained("model").eval()
names = [name.rpartition("q_proj.")[2] for name, _ in read.named_parameters() if "q_proj" in name]
same = torch.allclose(read(input_ids=ids).logits, alone)
print(type(read).__name__, *(f"model.layers.0.self_attn.q_proj.{name}" for name in names), sep="\n")
print(f"the logits of the weights alone: {same}")
expected = ("LlamaForCausalLM", ["base_layer.weight", "lora_A.default.weight", "lora_B.default.weight"], False)
if (type(read).__name__, names, same) != expected:
    sys.exit("changed: the adapter is no longer loaded unasked")
PY
