"""Names that `streaming.vision` imports."""


class VisionDataset:
    """Never used."""


class CIFAR10(VisionDataset):
    """Never used."""
