"""What a run is: schema, loading, validation. No torch in here."""
