from curate_broken.base import Uniform, config


class METHOD(Uniform):
    Config = config("raises")

    def wrong(self, weights):
        return {}["gone"]
