//! Images as files: OCI image layouts (directory or tar) and Docker archives, read and written.
