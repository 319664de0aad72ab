"""Datasets (TFDS in, arrays out) and augmentation."""
