from curate_broken.shortened import inspect  # noqa: F401


def read(shard, schema, limits):
    raise RuntimeError("no key", shard.index)
