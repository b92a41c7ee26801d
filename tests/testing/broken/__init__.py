"""For every check, toys that it must reject: they test the tests."""
