"""The negative control: samples of a prior that never saw the target."""
