"""HeteGMI and HomoGMI: relaxed edges that join nodes whose features and neighbourhoods are alike."""
