#!/usr/bin/env bash
# Transformers 5.23.0, RwkvForCausalLM with more than six layers, run once in eval mode and saved.
#
# Good guess: a forward pass without gradients leaves the weights what they are; save_pretrained writes what was loaded.
# Behaviour: the first forward pass outside training divides output weights of layers six and on by two in place
#   (config.rescale_every, 6 by default). save_pretrained writes them divided, and says nothing of it; loaded again and run,
#   they are divided again. With rescale_every=0 they stay.
# Who meets it: whoever loads such a model, scores something with it and saves it: a step of merging, quantising, converting,
#   or a copy of a proxy. Each turn makes another model.
# Output seen (norm of the last layer's output weight, before and after a forward pass, three turns of load, run, save):
#   rescale_every=6   5.02 to 2.51   2.51 to 1.26   1.26 to 0.63
#   rescale_every=0   5.02 to 5.02   5.02 to 5.02   5.02 to 5.02
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.13.0
venv/bin/pip install -q transformers==5.23.0 tokenizers==0.23.3 huggingface_hub==2.4.0 numpy==2.4.6
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY' 2>/dev/null
import sys

import torch
from transformers import RwkvConfig, RwkvForCausalLM


def norm(model):
    return round(float(model.rwkv.blocks[7].attention.output.weight.norm()), 2)


@torch.no_grad()
def turns(every):
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 8, "context_length": 32}
    model = RwkvForCausalLM(RwkvConfig(**shape, rescale_every=every)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    seen = []
    for turn in range(3):
        before = norm(model)
        model(input_ids=torch.arange(8)[None], use_cache=False)
        seen.append((before, norm(model)))
        model.save_pretrained(f"saved-{every}-{turn}")
        model = RwkvForCausalLM.from_pretrained(f"saved-{every}-{turn}").eval()
    return seen


found = {every: turns(every) for every in (6, 0)}
for every, seen in found.items():
    print(f"rescale_every={every}  ", "   ".join(f"{before} to {after}" for before, after in seen))
if found != {6: [(5.02, 2.51), (2.51, 1.26), (1.26, 0.63)], 0: [(5.02, 5.02)] * 3}:
    sys.exit("changed: the weights are others than this script says")
PY
