"""The attack C2F-MI."""
