"""A participant that uses nothing of the SDK: what docs/guide-any-language.md asks for, in one file."""
