"""One explained clip: chosen, drawn, written, tabled; and the live callback."""
