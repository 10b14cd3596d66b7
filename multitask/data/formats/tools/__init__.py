"""Exports of annotation tools: what turns their JSON values and Rasa files into rows."""
