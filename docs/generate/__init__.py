"""What pages show of the code and of committed results: `python -m docs.generate` writes it between their markers."""
