from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("two")

    def wrong(self, weights):
        return weights * 2
