"""Running it: tracking and drift; each third-party API that breaks often is called from one module here."""
