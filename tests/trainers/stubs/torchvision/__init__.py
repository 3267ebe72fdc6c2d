"""Stands for torchvision, of which PyTorch's CPU build has none here: `streaming` imports it, and reads no image."""
