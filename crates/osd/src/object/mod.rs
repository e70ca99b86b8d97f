//! Objects: vectors of operations on them, and the classes whose methods run beside the data.
