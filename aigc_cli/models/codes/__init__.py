"""Models of the codes of a tokenizer: what was a picture, or sound, is a row of codes to them."""
