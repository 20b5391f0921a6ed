"""Who may be here: keys, certificates, networks, consent."""
