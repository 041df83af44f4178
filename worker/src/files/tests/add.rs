//! ADD of archives.

use super::*;

#[test]
fn files_that_are_no_archives_are_copied() {
    let source = Dir::with(&["text.tar.gz", "dir/f"]);
    source.write("empty.tar", "");
    source.write("zip.zip", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let base = Dir::new();
    let tree = source.local();
    cp(&["text.tar.gz", "empty.tar", "zip.zip"], "/out/").add().run(&tree, &base);
    cp(&["dir"], "/dir/").add().run(&tree, &base);
    assert_eq!(base.read("out/text.tar.gz"), "text.tar.gz");
    assert_eq!(base.read("out/empty.tar"), "");
    assert_eq!(base.read("dir/f"), "f");
}
