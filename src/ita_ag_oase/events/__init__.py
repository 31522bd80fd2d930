"""The rules that turn a source's answer into events (protocol section 2.6). Pure: no input, output or clock."""
