"""What a run does, stage by stage: one module a stage, and what they share."""
