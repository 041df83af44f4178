//! Against the crate `parse-dockerfile`, on the Dockerfiles of `testdata/conformance`: both must see the same instructions in the
//! same places, with the same bases, sources, destinations, exec forms and heredocs. Where that crate is wrong (what
//! BuildKit does is in the case's expected result, and ours is checked against that), the case is listed with the reason.

use std::path::Path;

use bricklayer_frontend::Dockerfile;
use bricklayer_frontend::instruction::{CommandForm, CopyFiles, Kind};
use parse_dockerfile::{Command, Instruction, Source};

/// Cases that parse-dockerfile reads otherwise than BuildKit, or not at all.
const OTHERWISE: &[(&str, &str)] = &[
    ("cmd-and-entrypoint-empty", "it refuses `ENTRYPOINT []`"),
    ("double-dash-ends-flags", "it knows no `--` behind flags"),
    (
        "escape-directive-backtick",
        "it takes an escaped quote inside of quotes for their end, and loses the next instruction",
    ),
    ("run-heredoc-feeds-a-command", "it finds a heredoc only as the first word of RUN"),
    ("run-heredoc-several-descriptors", "it finds a heredoc only as the first word of RUN"),
    ("stage-name-given-twice", "it refuses a stage's name given twice"),
];

/// What is compared of an instruction: where it begins, and what it says.
type Seen = (usize, String);

fn ours(text: &str) -> Result<Vec<Seen>, String> {
    let file = Dockerfile::parse(text.as_bytes()).map_err(|errors| errors.to_string())?;
    let command = |form: &CommandForm| match form {
        CommandForm::Exec(args) => format!("exec {args:?}"),
        CommandForm::Shell(_) => "shell".to_owned(),
    };
    let copy = |copy: &CopyFiles| {
        let sources: Vec<&str> = copy.sources.iter().map(|word| word.text.as_str()).collect();
        let bodies: Vec<String> = copy.heredocs.iter().map(|file| file.heredoc.text()).collect();
        format!("{sources:?} {bodies:?} {}", copy.destination.text)
    };
    Ok(file
        .instructions()
        .iter()
        .map(|instruction| {
            let said = match &instruction.kind {
                Kind::From(from) => {
                    format!(
                        "{} {}",
                        from.image.text,
                        from.name.as_ref().map_or("", |name| name.text.as_str())
                    )
                }
                Kind::Run(run) => {
                    let bodies: Vec<String> =
                        run.command.heredocs.iter().map(|heredoc| heredoc.text()).collect();
                    format!("{} {bodies:?}", command(&run.command.form))
                }
                Kind::Cmd(c) | Kind::Entrypoint(c) => command(&c.form),
                Kind::Copy(c) | Kind::Add(c) => copy(c),
                Kind::User(word) | Kind::Workdir(word) | Kind::StopSignal(word) => word.text.clone(),
                Kind::Shell(args) => format!("{args:?}"),
                _ => String::new(),
            };
            (instruction.keyword.span.start, said)
        })
        .collect())
}

fn theirs(text: &str) -> Result<Vec<Seen>, String> {
    let file = parse_dockerfile::parse(text).map_err(|error| error.to_string())?;
    let command = |command: &Command<'_>| match command {
        Command::Exec(args) => {
            format!("exec {:?}", args.value.iter().map(|arg| arg.value.to_string()).collect::<Vec<_>>())
        }
        _ => "shell".to_owned(),
    };
    let copy = |sources: &[Source<'_>], dest: &str| {
        let (mut paths, mut bodies) = (Vec::new(), Vec::new());
        for source in sources {
            match source {
                Source::Path(path) => paths.push(path.value.to_string()),
                Source::HereDoc(heredoc) => bodies.push(heredoc.value.to_string()),
                other => panic!("{other:?}"),
            }
        }
        format!("{paths:?} {bodies:?} {dest}")
    };
    Ok(file
        .instructions
        .iter()
        .map(|instruction| match instruction {
            Instruction::From(i) => {
                let name = i.as_.as_ref().map_or_else(String::new, |(_, name)| name.value.to_string());
                (i.from.span.start, format!("{} {name}", i.image.value))
            }
            Instruction::Run(i) => {
                let bodies: Vec<String> =
                    i.here_docs.iter().map(|heredoc| heredoc.value.to_string()).collect();
                (i.run.span.start, format!("{} {bodies:?}", command(&i.arguments)))
            }
            Instruction::Cmd(i) => (i.cmd.span.start, command(&i.arguments)),
            Instruction::Entrypoint(i) => (i.entrypoint.span.start, command(&i.arguments)),
            Instruction::Copy(i) => (i.copy.span.start, copy(&i.src, &i.dest.value)),
            Instruction::Add(i) => (i.add.span.start, copy(&i.src, &i.dest.value)),
            Instruction::User(i) => (i.user.span.start, i.arguments.value.to_string()),
            Instruction::Workdir(i) => (i.workdir.span.start, i.arguments.value.to_string()),
            Instruction::Stopsignal(i) => (i.stopsignal.span.start, i.arguments.value.to_string()),
            Instruction::Shell(i) => {
                let args: Vec<String> = i.arguments.iter().map(|arg| arg.value.to_string()).collect();
                (i.shell.span.start, format!("{args:?}"))
            }
            Instruction::Arg(i) => (i.arg.span.start, String::new()),
            Instruction::Env(i) => (i.env.span.start, String::new()),
            Instruction::Expose(i) => (i.expose.span.start, String::new()),
            Instruction::Healthcheck(i) => (i.healthcheck.span.start, String::new()),
            Instruction::Label(i) => (i.label.span.start, String::new()),
            Instruction::Maintainer(i) => (i.maintainer.span.start, String::new()),
            Instruction::Onbuild(i) => (i.onbuild.span.start, String::new()),
            Instruction::Volume(i) => (i.volume.span.start, String::new()),
            other => panic!("{other:?}"),
        })
        .collect())
}

/// The Dockerfile of a case, if it stands in it as text.
fn dockerfile(case: &str) -> Option<String> {
    let mut out: Option<String> = None;
    for line in case.split_inclusive('\n') {
        match (line.strip_prefix("-- "), &mut out) {
            (Some(rest), None) if rest.trim_end().ends_with("Dockerfile --") => out = Some(String::new()),
            (Some(rest), Some(_)) if rest.trim_end().ends_with(" --") => break,
            (_, Some(text)) => text.push_str(line),
            _ => {}
        }
    }
    out
}

#[test]
fn both_read_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance");
    let (mut compared, mut problems) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "case") {
            continue;
        }
        let Some(text) = dockerfile(&std::fs::read_to_string(&path).unwrap()) else { continue };
        // what is refused is refused for reasons of our own, or by BuildKit
        let Ok(ours) = ours(&text) else { continue };
        let listed = OTHERWISE.iter().any(|(case, _)| *case == name);
        let theirs = theirs(&text);
        let same = theirs.as_ref() == Ok(&ours);
        compared += usize::from(same);
        if same == listed {
            problems.push(format!("{name}: listed: {listed}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(compared > 150, "only {compared} cases were read by both");
}
