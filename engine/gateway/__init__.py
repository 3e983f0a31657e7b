"""Orders to a venue's session and its reports back: OUCH 5.0 on SoupBinTCP. stage.py connects, hot/step.py trades."""
