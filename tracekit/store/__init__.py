"""The SQLite file that spans are kept in on the machine of the developer."""
