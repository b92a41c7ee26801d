"""Attacks on the mean of repeated answers, against defenses that draw noise anew."""
