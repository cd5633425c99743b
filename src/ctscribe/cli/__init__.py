"""The command line: parse, call one stage, print. Nothing else prints."""
