"""Clips as WAV or FLAC files, or as one array; and their spectrograms as one picture that a person can look at."""
