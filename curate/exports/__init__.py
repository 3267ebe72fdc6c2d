"""A finished dataset as one trainer reads it: one short module a trainer."""
