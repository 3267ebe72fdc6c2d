from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("nan")

    def wrong(self, weights):
        return weights * float("nan")
