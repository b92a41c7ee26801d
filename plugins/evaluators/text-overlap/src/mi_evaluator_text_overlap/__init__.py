"""How like the very text is what was recovered of it?"""
