"""From a voiceprint back to speech: by a learned inverter, or down the gradient of the encoder."""
