"""The attack PPA: plug & play attacks."""
