"""Do several independent classifiers agree on what was recovered?"""
