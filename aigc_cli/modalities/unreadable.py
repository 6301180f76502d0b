"""What readers of files of every modality raise."""


class Unreadable(Exception):
    """Why a file, or one item in it, cannot be used."""
