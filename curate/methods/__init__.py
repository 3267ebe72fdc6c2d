"""Methods that learn how much each sample counts: one file a method, all behind `base.PoolWeigher`."""
