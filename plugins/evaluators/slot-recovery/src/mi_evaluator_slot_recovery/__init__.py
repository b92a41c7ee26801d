"""Which personal data of a text were recovered?"""
