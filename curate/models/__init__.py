"""Causal language models: where they come from, what they lose on a token, how the proxy is warmed up."""
