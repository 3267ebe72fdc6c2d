"""One short module a trainer: two steps over an export, as a user would take them. Trainers are imported when they are tried."""
