"""The attack AlignMI: gradients averaged over changed copies of a candidate."""
