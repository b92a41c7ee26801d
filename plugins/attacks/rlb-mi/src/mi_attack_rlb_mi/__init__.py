"""The attack RLB-MI: reinforcement learning against a black box."""
