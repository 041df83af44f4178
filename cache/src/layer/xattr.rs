//! Which extended attributes belong to a layer.
