"""Personal data in training texts become tags or pseudonyms."""
