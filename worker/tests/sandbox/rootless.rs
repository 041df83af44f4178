//! All other tests of this program once more, in a user namespace: as an ordinary user with subordinate ids, and as one
//! with a single id.

use std::path::Path;
use std::process::Command;

/// What can't be there, and why; a module with `::` at the end, or a test.
const NOT: [(&str, &str); 5] = [
    ("older::", "runs this program itself"),
    ("rootless::", "is this"),
    ("limits::", "an ordinary user has no part of the hierarchies of version 1"),
    ("runtime::limits_hold_and_are_told", "likewise"),
    (
        "escape::an_insecure_command_may_do_what_buildkit_lets_it_do",
        "devices can't be made, nor the host's cloned",
    ),
];

/// What can't be with a single id, which is root's, or need not be run again.
const NOT_SINGLE: [(&str, &str); 12] = [
    ("environment::the_working_directory_is_made_for_the_user", "it belongs to another user"),
    ("environment::users_have_their_ids_groups_and_home", "other users"),
    ("escape::capabilities_are_the_default_ones", "those of another user"),
    ("mounts::a_socket_has_a_mode_and_an_owner_of_its_own", "another owner"),
    ("mounts::secrets_have_mode_and_owner_and_can_not_be_changed", "another owner"),
    (
        "processes::the_kernel_ends_a_command_whose_builder_and_supervisor_are_killed_at_once",
        "it becomes another user",
    ),
    ("runtime::mounts_are_the_same_and_leave_nothing", "another owner"),
    ("runtime::other_users_rights_and_places_are_the_same", "other users"),
    ("stdio::what_is_typed_reaches_a_terminal_as_another_user", "another user"),
    ("network::", "nothing in it has to do with ids"),
    ("swaps::", "likewise"),
    ("syscalls::", "likewise"),
];

/// Runs this program as a user of testdata/rootless/as. Needs root, Debian's uidmap, and util-linux's unshare.
fn run(kind: &str, map: &[&str], without: &[(&str, &str)]) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let home = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
    let this = std::env::current_exe().expect("the test program");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/rootless/as"));
    command.arg("--bring").arg(this).args(["tests", kind]).arg(home.path());
    // What is temporary must lie where the user may write, and the working directory leads to testdata.
    command.args(["sh", "-c", "TMPDIR=$HOME exec unshare --user --map-root-user --mount \"$@\"", "sh"]);
    command.args(map).arg("./tests");
    for (name, _) in without {
        command.args(["--skip", name]);
    }
    let output = command.output().expect("testdata/rootless/as");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("test mounts::mount_points_leave_no_trace ... ok"), "{said}");
}

#[test]
fn sandboxes_are_the_same_in_a_user_namespace() {
    run("mapped", &["--map-auto"], &NOT);
}

#[test]
fn sandboxes_are_the_same_with_a_single_id() {
    run("single", &[], &[&NOT[..], &NOT_SINGLE].concat());
}
