"""The network that learns from clips, whose penultimate features metrics look at, and a small view of a clip."""
