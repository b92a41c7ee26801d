"""Does it sound like speech, and like whose? Judged on the waveform, without any classifier."""
