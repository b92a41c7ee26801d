"""The attack audio MI: gradients on a waveform, a mel spectrogram or an equaliser of somebody else's speech."""
