"""Stands for torchvision, which has no build for the CPU build of PyTorch: `streaming` imports it for images, and reads none here."""
