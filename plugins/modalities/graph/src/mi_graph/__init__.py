"""Graphs for micore: samples, data sets, networks, and what attacks on the structure of a graph share."""
