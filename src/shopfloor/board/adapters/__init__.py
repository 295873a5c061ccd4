"""Models that tell which texts mean the same, by file name."""
