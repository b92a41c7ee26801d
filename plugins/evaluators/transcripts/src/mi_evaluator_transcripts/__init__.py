"""Were the secrets of training clips recovered?"""
