"""Clips that a person names: a sound file, a folder of them, or an ``.npz`` file."""
