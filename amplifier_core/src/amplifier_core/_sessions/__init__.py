"""Sessions: what one holds, who may do what in it, and how it begins and ends."""
