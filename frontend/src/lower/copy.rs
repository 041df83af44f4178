//! COPY and ADD.

use bricklayer_solver::graph::{Input, StepInfo, Usage, VertexId};
use bricklayer_solver::mode;
use bricklayer_solver::op::{Copy, FileAction, FileOp, HttpSource, Mode, Op, Owner, Selection, Source};
use bricklayer_solver::pattern::{Glob, Patterns, clean};

use super::Lowering;
use super::run::{at, file_name};
use super::source::{without_password, without_user};
use super::stage::Step;
use super::state::{Root, State};
use crate::diagnostics::Diagnostic;
use crate::git;
use crate::instruction::{CopyFiles, HeredocFile, Word};
use crate::lint::rules;
use crate::words::Lexer;

/// What all actions of one COPY have in common.
struct Common {
    dest: String,
    owner: Option<Owner>,
    mode: Option<Mode>,
    replace: bool,
    created: Option<i64>,
}

/// The actions of one COPY, and what they copy from.
struct Actions {
    inputs: Vec<Input>,
    actions: Vec<FileAction>,
}

impl Actions {
    fn add(&mut self, from: VertexId, selection: Selection, unpack: bool, common: &Common) {
        self.inputs.push(Input { vertex: from, usage: Usage::Files(selection.clone()) });
        self.actions.push(FileAction::Copy(Copy {
            input: self.inputs.len() - 1,
            selection,
            dest: common.dest.clone(),
            owner: common.owner.clone(),
            mode: common.mode.clone(),
            unpack,
            replace: common.replace,
            created: common.created,
        }));
    }
}

impl Lowering<'_> {
    pub(super) fn copy_step(
        &mut self,
        index: usize,
        copy: &CopyFiles,
        is_add: bool,
        step: &Step<'_>,
        state: &mut State,
    ) -> Result<(), Diagnostic> {
        let instruction = &*step.instruction;
        let mut expand = |word: &Word| self.expand(&word.text, word, state, instruction);
        let mut sources = Vec::with_capacity(copy.sources.len());
        for word in &copy.sources {
            sources.push((expand(word)?, word));
        }
        let destination = expand(&copy.destination)?;
        let chown = copy.chown.as_ref().map(&mut expand).transpose()?.filter(|text| !text.is_empty());
        let chmod = copy.chmod.as_ref().map(&mut expand).transpose()?.filter(|text| !text.is_empty());
        let checksum = copy.checksum.as_ref().map(&mut expand).transpose()?.filter(|text| !text.is_empty());

        let link = copy.link && chmod.is_none();
        let common = Common {
            dest: absolute(&destination, state.cwd()),
            owner: chown.as_deref().map(owner),
            mode: match (&chmod, &copy.chmod) {
                (Some(text), Some(word)) => Some(parse_mode(text, word)?),
                _ => None,
            },
            replace: link,
            created: self.epoch,
        };
        self.check_exclude(copy)?;
        self.check_checksum(copy, &sources, checksum.as_deref())?;
        self.check_destination(copy, &destination, state, step);

        let root = self.root_vertex(state);
        let base = root.filter(|_| !link);
        let mut out = Actions {
            inputs: base.map(|vertex| Input { vertex, usage: Usage::Root }).into_iter().collect(),
            actions: Vec::new(),
        };
        let shown = self.shown(&instruction.text, &*state.env.clone(), false);
        let info = self.step_info(index, step, state, &shown);
        let mut local: Option<Selection> = None;
        for (source, word) in &sources {
            if self.remote(
                source,
                word,
                copy,
                is_add,
                checksum.as_deref(),
                &info,
                &common,
                &mut local,
                step,
                index,
                &mut out,
            )? {
                continue;
            }
            if step.sources.is_empty() {
                self.check_ignored(source, is_add, word, step);
            }
            let (path, wildcards) = selected(source, copy.parents, word)?;
            // sources of one kind are copied together
            match &mut local {
                Some(selection) if selection.wildcards == wildcards => selection.paths.push(path),
                _ => {
                    self.flush(&mut local, copy, is_add, &common, step, index, &mut out)?;
                    local = Some(Selection {
                        paths: vec![path],
                        wildcards,
                        exclude: copy.exclude.iter().map(|word| word.text.clone()).collect(),
                        parents: copy.parents,
                    });
                }
            }
        }
        self.flush(&mut local, copy, is_add, &common, step, index, &mut out)?;
        for file in &copy.heredocs {
            let vertex = self.inline_file(file, state, step)?;
            let selection = Selection { paths: vec![file.heredoc.name.clone()], ..Selection::default() };
            out.add(vertex, selection, false, &common);
        }

        let op = Op::File(FileOp { base: base.map(|_| 0), actions: out.actions });
        let name = info.name.clone();
        let merge_info = StepInfo { name: name.replacen("] ", "] LINK ", 1), ..info.clone() };
        let mut vertex = self.graph.add(op, out.inputs, info);
        if let (true, Some(root)) = (link, root) {
            let inputs = [root, vertex].map(|vertex| Input { vertex, usage: Usage::Root }).to_vec();
            vertex = self.graph.add(Op::Merge, inputs, merge_info);
        }
        state.root = Root::Step(vertex);

        let mut text = if is_add { "ADD" } else { "COPY" }.to_owned();
        if copy.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        for (source, _) in &sources {
            text.push(' ');
            text.push_str(&without_password(source));
        }
        for file in &copy.heredocs {
            text.push_str(&format!(" <<{}", file.heredoc.name));
        }
        let entry = self.history_entry(format!("{text} {destination} # buildkit"), false);
        state.history.push(entry);
        Ok(())
    }

    /// Adds what has been gathered from the context or the stage.
    #[expect(clippy::too_many_arguments, reason = "one COPY: nothing that would be an object of its own")]
    fn flush(
        &mut self,
        local: &mut Option<Selection>,
        copy: &CopyFiles,
        is_add: bool,
        common: &Common,
        step: &Step<'_>,
        index: usize,
        out: &mut Actions,
    ) -> Result<(), Diagnostic> {
        let Some(selection) = local.take() else { return Ok(()) };
        let from = match (step.sources.first(), &copy.from) {
            (Some(&Some(source)), Some(word)) => self.files_of(source, index, word)?,
            _ => self.main_context().map_err(|error| at(error, &copy.sources[0]))?,
        };
        out.add(from, selection, copy.unpack.unwrap_or(is_add), common);
        Ok(())
    }

    /// Adds a source that is a URL or a git repository. Is it one?
    #[expect(
        clippy::too_many_arguments,
        reason = "one source of one ADD: nothing that would be an object of its own"
    )]
    fn remote(
        &mut self,
        source: &str,
        word: &Word,
        copy: &CopyFiles,
        is_add: bool,
        checksum: Option<&str>,
        info: &StepInfo,
        common: &Common,
        local: &mut Option<Selection>,
        step: &Step<'_>,
        index: usize,
        out: &mut Actions,
    ) -> Result<bool, Diagnostic> {
        let found = git::parse(source).map_err(|error| {
            let help = "take credentials out of the URL; they are given as secrets";
            let shown = Diagnostic::error(
                format!("the source `{}` can't be used: {error}", without_user(source)),
                word.span,
            );
            if error == git::GitError::Credentials { shown.help(help) } else { shown }
        })?;
        if found.is_none() && !git::is_http(source) {
            return Ok(false);
        }
        if !is_add {
            let kind = if found.is_some() { "a git repository" } else { "a URL" };
            return Err(Diagnostic::error(format!("COPY can't take {kind} as a source"), word.span)
                .label("expected a path")
                .help("use ADD"));
        }
        self.flush(local, copy, is_add, common, step, index, out)?;
        let (op, selection, unpack) = match found {
            Some(found) => {
                let mut git = found.source;
                if let (Some(flag), Some(url)) = (copy.keep_git_dir, found.keep_git_dir)
                    && flag != url
                {
                    return Err(Diagnostic::error(
                        "--keep-git-dir and the URL say different things",
                        word.span,
                    ));
                }
                git.keep_git_dir = found.keep_git_dir.or(copy.keep_git_dir).unwrap_or(false);
                if let Some(wanted) = checksum {
                    if git.checksum.as_deref().is_some_and(|in_url| in_url != wanted) {
                        return Err(Diagnostic::error(
                            "--checksum and the URL name different commits",
                            word.span,
                        ));
                    }
                    git.checksum = Some(wanted.to_owned());
                }
                let commit = |text: &str| {
                    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
                };
                if let Some(checksum) = git.checksum.as_deref().filter(|checksum| !commit(checksum)) {
                    let place = copy.checksum.as_ref().unwrap_or(word);
                    return Err(Diagnostic::error(format!("`{checksum}` is no commit"), place.span)
                        .label("expected hex digits"));
                }
                let selection = Selection { paths: vec![".".to_owned()], ..Selection::default() };
                (Source::Git(git), selection, false)
            }
            None => {
                if git::url_has_credentials(source) {
                    let message = format!("the URL `{}` holds credentials", without_user(source));
                    return Err(Diagnostic::error(message, word.span)
                        .help("take them out of the URL; they are given as secrets"));
                }
                let checksum = match (checksum, &copy.checksum) {
                    (Some(text), Some(place)) => Some(text.parse().map_err(|_| {
                        Diagnostic::error(format!("`{text}` can't be checked"), place.span)
                            .label("expected sha256: and 64 hex digits")
                    })?),
                    _ => None,
                };
                let filename = git::file_name(source);
                let selection = Selection { paths: vec![filename.clone()], ..Selection::default() };
                let url = source.split('#').next().unwrap_or_default().to_owned();
                (
                    Source::Http(HttpSource { url, checksum, filename }),
                    selection,
                    copy.unpack.unwrap_or(false),
                )
            }
        };
        let selection =
            Selection { exclude: copy.exclude.iter().map(|word| word.text.clone()).collect(), ..selection };
        let vertex = self.graph.add(Op::Source(op), Vec::new(), info.clone());
        out.add(vertex, selection, unpack, common);
        Ok(true)
    }

    /// The step that writes a heredoc as a file.
    fn inline_file(
        &mut self,
        file: &HeredocFile,
        state: &State,
        step: &Step<'_>,
    ) -> Result<VertexId, Diagnostic> {
        let heredoc = &file.heredoc;
        let name = file_name(heredoc, &file.word)?;
        let mut data = heredoc.text();
        if heredoc.expand {
            let expansion = Lexer::heredoc().expand(&data, &*state.env, &self.budget).map_err(|error| {
                let mut span = heredoc.span;
                if !heredoc.strip_tabs {
                    span.start = (span.start + error.at).min(span.end);
                    let line = heredoc.content[error.at.min(heredoc.content.len())..].find('\n');
                    span.end = line.map_or(span.end, |i| span.start + i);
                }
                Diagnostic::error(error.reason.to_string(), span).label(error.reason.label())
            })?;
            self.check_undefined(&expansion.unmatched, state, &step.instruction, heredoc.span);
            data = expansion.text;
        }
        let action = FileAction::MakeFile {
            path: format!("/{name}"),
            mode: Mode::Bits(0o644),
            data: data.into_bytes(),
            owner: None,
            created: self.epoch,
        };
        let info =
            StepInfo { name: "[internal] preparing inline document".to_owned(), ..StepInfo::default() };
        Ok(self.graph.add(Op::File(FileOp { base: None, actions: vec![action] }), Vec::new(), info))
    }

    fn check_exclude(&self, copy: &CopyFiles) -> Result<(), Diagnostic> {
        for word in &copy.exclude {
            if Patterns::new(&[&word.text]).is_err() {
                return Err(Diagnostic::error(format!("`{}` is no pattern", word.text), word.span)
                    .label("expected a pattern as in .dockerignore"));
            }
        }
        Ok(())
    }

    fn check_checksum(
        &self,
        copy: &CopyFiles,
        sources: &[(String, &Word)],
        checksum: Option<&str>,
    ) -> Result<(), Diagnostic> {
        let (Some(_), Some(word)) = (checksum, &copy.checksum) else { return Ok(()) };
        let [(source, _)] = sources else {
            return Err(Diagnostic::error("--checksum is for a single source", word.span)
                .label("expected one source"));
        };
        if git::is_http(source) || matches!(git::parse(source), Ok(Some(_))) {
            return Ok(());
        }
        Err(Diagnostic::error("--checksum is for URLs and git repositories", word.span)
            .label(format!("`{source}` is neither")))
    }

    /// Several sources and a destination that is perhaps no directory.
    fn check_destination(&mut self, copy: &CopyFiles, destination: &str, state: &State, step: &Step<'_>) {
        let directory =
            destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".." | ""));
        let is_cwd = clean(destination) == clean(state.cwd());
        if copy.sources.len() + copy.heredocs.len() < 2 || directory || is_cwd {
            return;
        }
        let name = step.instruction.keyword.text.to_uppercase();
        let message = format!(
            "{name} has several sources, and its destination `{destination}` does not end with a slash"
        );
        let span = Some(copy.destination.span);
        self.lint.warn(&rules::COPY_DESTINATION_SLASH, &step.instruction.comments, span, message);
    }

    /// A source that .dockerignore hides.
    fn check_ignored(&mut self, source: &str, is_add: bool, word: &Word, step: &Step<'_>) {
        let ignore = &self.options.ignore;
        // what an exception takes back can't be told from the pattern alone
        if ignore.is_empty() || ignore.iter().any(|pattern| pattern.starts_with('!')) {
            return;
        }
        let path = clean(source);
        let is_root = matches!(&*path, "." | "/");
        if is_root && !ignore.iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*")) {
            return;
        }
        let Ok(patterns) = Patterns::new(ignore) else { return };
        if is_root || patterns.matches(path.trim_start_matches('/')) {
            let verb = if is_add { "Add" } else { "Copy" };
            let message = format!("Attempting to {verb} file {:?} that is excluded by .dockerignore", &*path);
            self.lint.warn(&rules::COPY_IGNORED_FILE, &step.instruction.comments, Some(word.span), message);
        }
    }
}

/// A source path below its root, and whether it is a pattern. With `--parents` the `/./` in it stays.
fn selected(source: &str, parents: bool, word: &Word) -> Result<(String, bool), Diagnostic> {
    let below_root = |path: &str| clean(&format!("/{path}")).trim_start_matches('/').to_owned();
    let wildcards = has_wildcards(source);
    let path = match source.split_once("/./").filter(|_| parents) {
        Some((parent, kept)) => match (below_root(parent).as_str(), below_root(kept).as_str()) {
            ("", kept) => kept.to_owned(),
            (parent, kept) => format!("{parent}/./{kept}"),
        },
        None => below_root(source),
    };
    let malformed = if parents { Patterns::new(&[&path]).is_err() } else { Glob::new(&path).is_err() };
    if wildcards && malformed {
        return Err(Diagnostic::error(format!("`{source}` is no pattern"), word.span)
            .label("a `[` is not closed, or a class is empty"));
    }
    Ok((if path.is_empty() { ".".to_owned() } else { path }, wildcards))
}

/// Has a path a `*`, `?` or `[` that no backslash makes plain?
fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// A destination inside the root filesystem: absolute, without `..`, with `/` behind it where a directory is meant.
fn absolute(destination: &str, cwd: &str) -> String {
    let path =
        if destination.starts_with('/') { destination.to_owned() } else { format!("{cwd}/{destination}") };
    let cleaned = clean(&format!("/{path}")).into_owned();
    let directory = matches!(destination.rsplit('/').next(), Some("" | "."));
    if directory && cleaned != "/" { format!("{cleaned}/") } else { cleaned }
}

/// `user[:group]`; `:group` is root and that group.
fn owner(text: &str) -> Owner {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    Owner { user: user.to_owned(), group: group.filter(|group| !group.is_empty()).map(str::to_owned) }
}

fn parse_mode(text: &str, word: &Word) -> Result<Mode, Diagnostic> {
    let octal = text.bytes().all(|b| b.is_ascii_digit());
    let label = "expected an octal number up to 07777, or a symbolic mode such as u=rwX,go=rX";
    let wrong = || Diagnostic::error(format!("invalid --chmod `{text}`"), word.span).label(label);
    if octal {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Mode::Bits(bits)),
            _ => Err(wrong()),
        };
    }
    match mode::parse(text) {
        Ok(_) => Ok(Mode::Symbolic(text.to_owned())),
        Err(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let cases = [
            ("/b.txt", "/", "/b.txt"),
            (".", "/app", "/app/"),
            ("./b", "/app", "/app/b"),
            ("sub/", "/app", "/app/sub/"),
            ("../up", "/app/src", "/app/up"),
            ("../../../up", "/app", "/up"),
            ("/../../up", "/", "/up"),
            ("/made/.", "/", "/made/"),
            ("", "/w", "/w/"),
            ("/", "/w", "/"),
            (".", "/", "/"),
            ("..", "/a/b", "/a"),
        ];
        for (destination, cwd, expected) in cases {
            assert_eq!(absolute(destination, cwd), expected, "{destination} in {cwd}");
        }
    }

    #[test]
    fn sources() {
        let word = Word { text: String::new(), span: Default::default() };
        let cases = [
            ("a", false, "a", false),
            ("../../a/./b/", false, "a/b", false),
            ("/", false, ".", false),
            ("*.txt", false, "*.txt", true),
            ("a\\*b", false, "a\\*b", false),
            ("arr[[]0].txt", false, "arr[[]0].txt", true),
            ("./x/./y/*.txt", true, "x/./y/*.txt", true),
            ("./src/./**/*.md", true, "src/./**/*.md", true),
            ("/./a", true, "a", false),
        ];
        for (source, parents, path, wildcards) in cases {
            assert_eq!(selected(source, parents, &word).unwrap(), (path.to_owned(), wildcards), "{source}");
        }
        assert!(selected("a[", false, &word).is_err());
    }

    #[test]
    fn owners() {
        let shown = |text: &str| {
            let owner = owner(text);
            format!("{} {:?}", owner.user, owner.group)
        };
        assert_eq!(
            ["app", "1:2", ":extra", "app:"].map(shown),
            ["app None", "1 Some(\"2\")", "0 Some(\"extra\")", "app None"]
        );
    }
}
