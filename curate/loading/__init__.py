"""The trainer's side of the data: a stream and a sampler that follow the weights of a run."""
