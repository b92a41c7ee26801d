"""Does an independent classifier recognise what was recovered?."""
