"""Weights that follow a model while it trains: generation by generation."""
