"""Which edges of a private graph were recovered?"""
