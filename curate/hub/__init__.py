"""A finished dataset on the Hub: what is sent, what is refused, what was verified."""
