"""aigc: train, sample and evaluate generative models from configuration."""

__version__ = "0.1.0"
