"""Mathematics the bilevel methods share: feasible set, hypergradient, step. Pure functions on tensors."""
