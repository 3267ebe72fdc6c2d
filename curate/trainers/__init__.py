"""Into somebody else's training: weighted losses, selection in the step, and the check that weights arrive."""
