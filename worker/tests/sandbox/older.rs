//! All other tests of this program once more, as on a kernel that takes no layers by descriptor.

use std::path::Path;
use std::process::Command;

/// Tests that see the filter that makes the kernel older.
const SEES_THE_FILTER: &str = "escape::an_insecure_command_may_do_what_buildkit_lets_it_do";

#[test]
fn sandboxes_are_the_same_on_older_kernels() {
    let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kernels/as");
    let this = std::env::current_exe().expect("the test program");
    let output = Command::new(&older)
        .arg("6.12")
        .arg(this)
        .args(["--skip", "older::", "--skip", "rootless::", "--skip", SEES_THE_FILTER])
        .output()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; it needs python3: apt-get install python3", older.display())
        });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("test mounts::subtrees_do_not_leave_their_root ... ok"), "{said}");
}
