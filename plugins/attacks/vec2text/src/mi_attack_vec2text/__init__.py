"""The attack Vec2Text: texts behind embeddings by guess and correction."""
