"""An adaptive attack on targets that are defended by trapdoors."""
