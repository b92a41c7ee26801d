"""How near is what was recovered to the very text, by an encoder that was not attacked?"""
