from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("short")

    def wrong(self, weights):
        return weights[:-1]
