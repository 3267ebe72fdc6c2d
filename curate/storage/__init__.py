"""Bytes on disk; knows no machine learning. `atomic` is the only writer of the whole project."""
