"""What was done and may be trusted: the run record, the commit records, the dataset manifest."""
