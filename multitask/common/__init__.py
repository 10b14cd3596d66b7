"""Basics that every other package uses: files, caches, checksums, messages, devices and processes."""
