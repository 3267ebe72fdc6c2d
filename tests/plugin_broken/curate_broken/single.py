from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("single")

    def wrong(self, weights):
        return weights.float()
