"""Where samples come from: files and Hub datasets, listed once, hashed, cut into shards, read within budgets."""
