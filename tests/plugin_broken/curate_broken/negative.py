from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("negative")

    def wrong(self, weights):
        return weights - 2
