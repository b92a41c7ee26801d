"""Stealthy Shield Defense against black-box model inversion."""
