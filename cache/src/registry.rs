//! Pull from and push to registries (OCI distribution-spec v1.1).
