"""Run tasks somewhere; knows no machine learning. Truth is on disk: an executor only maps."""
