"""The attack sliding MI: a waveform is inverted window by window, with overlap."""
