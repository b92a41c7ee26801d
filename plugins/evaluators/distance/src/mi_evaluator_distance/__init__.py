"""How near to the private samples is what was recovered?."""
