"""Which sensitive values of private rows were recovered?"""
