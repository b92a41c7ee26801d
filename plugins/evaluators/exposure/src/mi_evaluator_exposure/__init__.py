"""How far do planted secrets stand out among others of their kind?"""
