"""What a person looks at: the HTML report of a run and the progress display. No weight is computed here."""
