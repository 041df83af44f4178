//! What can be typed: the flags, as typed. What they mean is decided in [`super::flags`] and [`super::output`], which
//! can be tested without a process; nothing is checked here that needs a file or a variable.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand};

use super::display::Progress;
use super::limits::LimitArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Builds OCI images from Dockerfiles, without a daemon
#[derive(Debug, Parser)]
#[command(name = "bricklayer", version, styles = STYLES, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every subcommand.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The store's directory [default: /var/lib/bricklayer as root, otherwise $XDG_DATA_HOME/bricklayer] [env: BRICKLAYER_ROOT]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) root: Option<PathBuf>,
    /// A registry (host[:port]) that speaks HTTP, or HTTPS with a certificate that is not checked
    #[arg(long, global = true, value_name = "HOST", help_heading = "Global options")]
    pub(crate) insecure_registry: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Say what a build would do, step by step, and why
    Explain(Box<ExplainArgs>),
    /// Run a command in a new container of an image
    Run(Box<RunArgs>),
    /// List the builds that were, or show one step by step
    Builds(BuildsArgs),
    /// Show what the commands of a build wrote, whole
    Logs(LogsArgs),
    /// Open a shell in what a step of a build left
    Debug(Box<DebugArgs>),
    /// List the images of the store
    Images(ImagesArgs),
    /// Show an image as JSON
    Inspect(InspectArgs),
    /// Show how an image came about
    History(HistoryArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Take names away from images
    Rmi(RmiArgs),
    /// Fetch images from a registry
    Pull(PullArgs),
    /// Send images to their registry
    Push(PushArgs),
    /// Read images from an archive into the store
    Load(LoadArgs),
    /// Write images of the store to an archive
    Save(SaveArgs),
    /// Show what takes up room in the store
    Du(DuArgs),
    /// Remove what nothing needs from the store
    Prune(PruneArgs),
}

/// `bricklayer build`
#[derive(Debug, Default, Args)]
pub(crate) struct BuildArgs {
    /// A directory, the URL of a git repository or of a tar, or - for a tar or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,

    /// A name for the image (may be repeated)
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// The Dockerfile; - for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A build arg, or the name of an environment variable that is one
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// A label for the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// What to build for, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Another context: a directory, docker-image://REF, oci-layout://DIR[:TAG], or a URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,
    /// Ask the registry for base images even if the store has them; or: always, missing, never
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: Option<String>,
    /// RUN steps at the same time [default: the number of cores]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,

    /// Where the result goes: type=oci|docker|tar|local|image|registry[,dest=PATH][,…], or a directory, or - for a tar
    #[arg(short, long = "output", value_name = "OUTPUT", help_heading = "Output")]
    pub(crate) outputs: Vec<String>,
    /// Push the image to its registry: -o type=registry
    #[arg(long, help_heading = "Output")]
    pub(crate) push: bool,
    /// Hand the image to Docker (not supported yet)
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub(crate) load: bool,
    /// An annotation of the image's manifest
    #[arg(long = "annotation", value_name = "NAME=VALUE", help_heading = "Output")]
    pub(crate) annotations: Vec<String>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Write the graph of steps with their states and times, also of a build that failed: FILE.dot, .json or .svg
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "call"], help_heading = "Output")]
    pub(crate) graph: Vec<PathBuf>,
    /// Write where the time went, also of a build that failed: FILE.html is a page, .json a Chrome trace
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "call"], help_heading = "Output")]
    pub(crate) timing: Vec<PathBuf>,
    /// How the build is shown [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "DISPLAY", help_heading = "Output")]
    pub(crate) progress: Option<Progress>,
    /// Show nothing, print the image ID at the end: --progress=quiet
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Run every step, whatever is cached
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',', help_heading = "Cache")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Keep the store below this, such as 20g; the least recently used goes first [env: BRICKLAYER_CACHE_LIMIT]
    #[arg(long, value_name = "SIZE", help_heading = "Cache")]
    pub(crate) cache_limit: Option<String>,

    /// A secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SECRET", help_heading = "RUN steps")]
    pub(crate) secrets: Vec<String>,
    /// An SSH agent for RUN --mount=type=ssh: default or NAME[=SOCKET|=KEY[,KEY…]]
    #[arg(long, value_name = "AGENT", help_heading = "RUN steps")]
    pub(crate) ssh: Vec<String>,
    /// The network of RUN steps: default, none or host
    #[arg(long, value_name = "NETWORK", help_heading = "RUN steps")]
    pub(crate) network: Option<String>,
    /// Allow what a sandbox does not: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT,…", value_delimiter = ',', help_heading = "RUN steps")]
    pub(crate) allow: Vec<String>,
    /// A line for /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", help_heading = "RUN steps")]
    pub(crate) add_hosts: Vec<String>,
    /// The size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", help_heading = "RUN steps")]
    pub(crate) shm_size: Option<String>,
    /// A resource limit of processes, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", help_heading = "RUN steps")]
    pub(crate) ulimits: Vec<String>,
    /// The cgroup below which steps get theirs
    #[arg(long, value_name = "CGROUP", help_heading = "RUN steps")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// What is done when a RUN fails: shell opens one in what it left
    #[arg(long, value_name = "ACTION", value_enum, help_heading = "RUN steps")]
    pub(crate) on_fail: Option<OnFail>,
    /// An OCI runtime such as runc or crun that RUN steps run under, instead of the sandbox of this program [env: BRICKLAYER_OCI_RUNTIME]
    #[arg(long, value_name = "PROGRAM", help_heading = "RUN steps")]
    pub(crate) oci_runtime: Option<PathBuf>,

    /// Only check the Dockerfile: --call=check
    #[arg(long, help_heading = "Instead of building")]
    pub(crate) check: bool,
    /// build, check, outline, targets or subrequests.describe; with ,format=json for programs
    #[arg(long, value_name = "METHOD", help_heading = "Instead of building")]
    pub(crate) call: Option<String>,

    // Known from Docker, and not there: an error that says so is better than "unexpected argument".
    #[arg(long, hide = true)]
    pub(crate) cache_from: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) cache_to: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) attest: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) device: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) squash: bool,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rm: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) force_rm: Option<String>,
}

/// `bricklayer explain`
///
/// Takes the flags of `build`. Nothing runs, and no image, file or ID is written anywhere.
#[derive(Debug, Default, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Answer,
}

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Answer {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// The forms of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

/// `bricklayer builds`
///
/// The newest hundred builds are kept, also those that failed, were cancelled or killed.
#[derive(Debug, Args)]
pub(crate) struct BuildsArgs {
    /// Show this build step by step: the beginning of an ID, latest, or -2 for the one before the latest
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    pub(crate) build: Option<String>,
    /// Only builds that ended so: outcome=done, failed, cancelled, killed, running
    #[arg(long, value_name = "FILTER", conflicts_with = "build")]
    pub(crate) filter: Option<String>,
    /// Write where the time of BUILD went: FILE.html is a page, .json a Chrome trace
    #[arg(long, value_name = "FILE", requires = "build")]
    pub(crate) timing: Vec<PathBuf>,
    /// IDs only
    #[arg(short, long, conflicts_with = "build")]
    pub(crate) quiet: bool,
    /// The form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `bricklayer logs`
///
/// A file or a pipe gets the bytes just as they were written; both streams in the order in which they came.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The beginning of an ID, latest, or -2 for the one before the latest
    #[arg(value_name = "BUILD", default_value = "latest", allow_negative_numbers = true)]
    pub(crate) build: String,
    /// A step's number, or a part of its name [default: all that wrote something]
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// When each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Go on until a build that runs has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `bricklayer debug`
///
/// Looks into a RUN that failed: on its files as it left them, with its mounts, variables, user, working directory, network and
/// limits; or into a step that went well, on the files that it made. What is changed there is thrown away.
///
/// Exit code: that of the shell or COMMAND; 125 if the step can't be opened, 126 if the command can't be executed, 127 if it is
/// not there.
#[derive(Debug, Default, Args)]
#[command(override_usage = "bricklayer debug [OPTIONS] [BUILD] [STEP] [-- COMMAND...]")]
pub(crate) struct DebugArgs {
    /// The beginning of an ID, latest, or -2 for the one before the latest [default: the newest that failed]
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    pub(crate) build: Option<String>,
    /// A step's number, or a part of its name [default: the one that failed]
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// What to run instead of a shell
    #[arg(value_name = "COMMAND", last = true)]
    pub(crate) command: Vec<String>,

    /// Who runs it instead of the step's user: user[:group], by name or number
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The directory to start in, instead of the step's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// A variable, or the name of one of this environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The network instead of the step's: default, none or host
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,

    /// A secret that the step mounts, as for build: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SECRET", help_heading = "Given again")]
    pub(crate) secrets: Vec<String>,
    /// An SSH agent that the step mounts, as for build: default or NAME[=SOCKET|=KEY[,KEY…]]
    #[arg(long, value_name = "AGENT", help_heading = "Given again")]
    pub(crate) ssh: Vec<String>,
    /// A directory that the step mounts files of: a --build-context, or context for the build context
    #[arg(long = "build-context", value_name = "NAME=DIR", help_heading = "Given again")]
    pub(crate) build_contexts: Vec<String>,
    /// Allow what the build allowed: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT,…", value_delimiter = ',', help_heading = "Given again")]
    pub(crate) allow: Vec<String>,
    /// The cgroup below which it gets its own
    #[arg(long, value_name = "CGROUP", help_heading = "Given again")]
    pub(crate) cgroup_parent: Option<String>,
    /// An OCI runtime such as runc or crun, instead of the sandbox of this program [env: BRICKLAYER_OCI_RUNTIME]
    #[arg(long, value_name = "PROGRAM", help_heading = "Given again")]
    pub(crate) oci_runtime: Option<PathBuf>,
}

/// `bricklayer run`
///
/// Tries an image out, in the foreground. What the container writes to its root filesystem is thrown away when it ends.
///
/// Exit code: that of the command; 125 if the container can't be made, 126 if the command can't be executed, 127 if it is
/// not there.
#[derive(Debug, Default, Args)]
#[command(override_usage = "bricklayer run [OPTIONS] IMAGE [COMMAND]...")]
pub(crate) struct RunArgs {
    /// An image, by name or by the beginning of its ID, and a command instead of the image's with its arguments
    #[arg(value_name = "IMAGE [COMMAND]", required = true, trailing_var_arg = true)]
    pub(crate) words: Vec<String>,

    /// Remove the container when it ends, which is done in any case
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A variable, or the name of one of this environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A file with a variable a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// The directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Who runs the command: user[:group], by name or number
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The program instead of the image's ENTRYPOINT; the image's CMD does not count then
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// What the image is for, where it is for several platforms
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Ask the registry even if the store has the image; or: always, missing, never
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: Option<String>,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,

    /// Mount a file or directory of the host
    #[arg(short, long = "volume", value_name = "HOST:DIR[:ro]", help_heading = "Files")]
    pub(crate) volumes: Vec<String>,
    /// Mount something: type=bind,src=HOST,dst=DIR[,readonly] or type=tmpfs,dst=DIR[,tmpfs-size=SIZE][,tmpfs-mode=MODE]
    #[arg(long = "mount", value_name = "MOUNT", help_heading = "Files")]
    pub(crate) mounts: Vec<String>,
    /// Mount an empty directory in memory, with options such as size=64m,mode=700,exec
    #[arg(long, value_name = "DIR[:OPTIONS]", help_heading = "Files")]
    pub(crate) tmpfs: Vec<String>,
    /// Allow writes to what is mounted only
    #[arg(long, help_heading = "Files")]
    pub(crate) read_only: bool,
    /// The size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", help_heading = "Files")]
    pub(crate) shm_size: Option<String>,

    /// The network: default (a private one), none or host
    #[arg(long, alias = "net", value_name = "NETWORK", help_heading = "Network")]
    pub(crate) network: Option<String>,
    /// The host name inside
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub(crate) hostname: Option<String>,
    /// A line for /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub(crate) add_hosts: Vec<String>,

    /// Give it a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Rights")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability from it, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Rights")]
    pub(crate) cap_drop: Vec<String>,
    /// A resource limit of processes, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", help_heading = "Rights")]
    pub(crate) ulimits: Vec<String>,
    /// The cgroup below which it gets its own
    #[arg(long, value_name = "CGROUP", help_heading = "Rights")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// An OCI runtime such as runc or crun that makes the container, instead of this program [env: BRICKLAYER_OCI_RUNTIME]
    #[arg(long, value_name = "PROGRAM", help_heading = "Rights")]
    pub(crate) oci_runtime: Option<PathBuf>,

    // Known from Docker, and not there.
    #[arg(short, long, hide = true)]
    pub(crate) detach: bool,
    #[arg(short, long, hide = true)]
    pub(crate) publish: Vec<String>,
    #[arg(short = 'P', long, hide = true)]
    pub(crate) publish_all: bool,
    #[arg(long, hide = true)]
    pub(crate) privileged: bool,
    #[arg(long, hide = true)]
    pub(crate) device: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) gpus: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) name: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) restart: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) init: bool,
    #[arg(long, hide = true)]
    pub(crate) pid: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) ipc: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) userns: Option<String>,
}

/// `bricklayer images`
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Names to show; * stands for anything [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whole image IDs
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `bricklayer inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Images, by name or by the beginning of their ID
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// The platform, where the image is for several
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

/// `bricklayer history`
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The image, by name or by the beginning of its ID
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Whole instructions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The platform, where the image is for several
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// The form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `bricklayer tag`
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or by the beginning of its ID
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Its new names
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// `bricklayer rmi`
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names to take away; an image without a name goes when nothing needs it
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

/// `bricklayer pull`
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Images
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// The platform, where the image is for several
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

/// `bricklayer push`
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Images of the store; the name says the registry
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

/// `bricklayer load`
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// An OCI or Docker archive, maybe compressed; - for standard input [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

/// `bricklayer save`
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Images of the store
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// The archive; - for standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Its form
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Archive,
}

/// `bricklayer du`
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Every layer, blob and cache mount, not only sums
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// `bricklayer prune`
///
/// What an image with a name needs, or what a running build uses, is never removed.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// The cache as well, not only what no cache record leads to
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Until the store takes no more than this, such as 10g; the least recently used goes first
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Only what was not used for so long, such as 24h or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: Option<String>,
    /// The same as Docker says it: until=24h
    #[arg(long, value_name = "FILTER", conflicts_with = "older_than")]
    pub(crate) filter: Option<String>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What is done when a RUN fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnFail {
    /// A shell on the files as the command left them, with its mounts and variables
    Shell,
}

/// Forms of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Archive {
    /// An OCI image layout in a tar
    #[default]
    Oci,
    /// What `docker load` takes
    Docker,
}

/// How work on images is shown.
#[derive(Debug, Default, Args)]
pub(crate) struct DisplayArgs {
    /// How the work is shown [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "DISPLAY")]
    pub(crate) progress: Option<Progress>,
    /// Show nothing but results
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
