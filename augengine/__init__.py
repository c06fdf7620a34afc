"""augengine: Ray-distributed generative data augmentation for medical image segmentation."""

__version__ = "0.1.0"
