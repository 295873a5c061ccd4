"""Speed, printed as ratios against the raw limit measured in the same run."""
