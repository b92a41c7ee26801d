"""The audio data sets, one module each; every opener is a `micore.contracts.DatasetOpener`."""
