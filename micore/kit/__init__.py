"""Optional building blocks for plugin authors. Import the module that is needed: this one imports nothing."""
