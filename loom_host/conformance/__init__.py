"""`loom plugin test`: whether a plugin keeps to what it says and to what every plugin owes."""
