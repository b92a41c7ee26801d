"""How much of its training texts did a language model give away?"""
