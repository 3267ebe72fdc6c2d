"""One short module a trainer: what it reads, in its own format, with as much of the weights as it can honour."""
