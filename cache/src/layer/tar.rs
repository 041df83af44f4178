//! Reading and writing tar entries.
