"""MC-GRA: relaxed edges along which a graph network is, layer by layer, what is known of it."""
