"""Reads the machine-readable zone of a document (ICAO 9303) out of a picture: finds its lines, then their characters.

The models are PP-OCR's, as the package rapidocr ships them. Nothing in here corrects what was read by check digits.
"""
