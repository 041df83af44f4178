//! `RUN --mount=…`: a list of options in CSV.

use bricklayer_solver::op::Sharing;

use crate::diagnostics::Diagnostic;
use crate::instruction::Word;
use crate::suggest::nearest;
use crate::text::{bytes, csv};

/// A mount's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const TYPES: [(&str, Type); 5] = [
    ("bind", Type::Bind),
    ("cache", Type::Cache),
    ("tmpfs", Type::Tmpfs),
    ("secret", Type::Secret),
    ("ssh", Type::Ssh),
];

const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount as it is written, variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) kind: Type,
    pub(super) from: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) size: Option<u64>,
    pub(super) id: String,
    pub(super) sharing: Option<Sharing>,
    pub(super) required: bool,
    pub(super) env: Option<String>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

fn fields(word: &Word) -> Result<Vec<String>, Diagnostic> {
    csv(&word.text).ok_or_else(|| {
        Diagnostic::error("the options of a mount can't be read: a quote stands where none may", word.span)
            .label("expected `key=value`, parted by commas")
    })
}

/// What `from` names, which takes no variables.
pub(super) fn from(word: &Word) -> Result<Option<String>, Diagnostic> {
    let mut found = None;
    for field in fields(word)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 < value.len()) {
            return Err(Diagnostic::error("`from` of a mount takes no variables", word.span)
                .label("expected the name of a stage, an image, or a named context")
                .help("begin a stage with `FROM` and the variable, and mount from that stage"));
        }
        found = Some(value.to_owned()).filter(|name| !name.is_empty());
    }
    Ok(found)
}

/// Reads a mount; `expand` expands a value.
pub(super) fn parse(
    word: &Word,
    expand: &mut dyn FnMut(&str) -> Result<String, Diagnostic>,
) -> Result<Spec, Diagnostic> {
    let mut spec = Spec {
        kind: Type::Bind,
        from: String::new(),
        source: String::new(),
        target: String::new(),
        read_only: false,
        size: None,
        id: String::new(),
        sharing: None,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut read_only = None;
    let fail = |message: String, label: &str| Diagnostic::error(message, word.span).label(label);
    for field in fields(word)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        if !KEYS.contains(&key.as_str()) {
            return Err(fail(format!("unknown option `{key}` of a mount"), "expected a mount's option")
                .suggest(nearest(&key, KEYS)));
        }
        let value = match (key.as_str(), value) {
            ("from", Some(value)) => value.to_owned(),
            (_, Some(value)) => expand(value)?,
            ("readonly" | "ro" | "readwrite" | "rw" | "required", None) => "true".to_owned(),
            (_, None) => {
                return Err(fail(format!("the mount option `{key}` needs a value"), "expected `key=value`"));
            }
        };
        let boolean = || {
            parse_bool(&value).ok_or_else(|| {
                fail(
                    format!("`{value}` is no value for the mount option `{key}`"),
                    "expected `true` or `false`",
                )
            })
        };
        let number = |radix: u32| {
            u32::from_str_radix(&value, radix).ok().filter(|_| !value.starts_with('+')).ok_or_else(|| {
                fail(format!("`{value}` is no value for the mount option `{key}`"), "expected a number")
            })
        };
        match key.as_str() {
            "type" => {
                let lower = value.to_ascii_lowercase();
                spec.kind = TYPES.iter().find(|(name, _)| *name == lower).map(|(_, kind)| *kind).ok_or_else(
                    || {
                        fail(
                            format!("unknown mount type `{value}`"),
                            "expected bind, cache, tmpfs, secret or ssh",
                        )
                        .suggest(nearest(&lower, TYPES.iter().map(|(name, _)| *name)))
                    },
                )?;
            }
            "from" => spec.from = value,
            "source" | "src" => spec.source = value,
            "target" | "dst" | "destination" => spec.target = value,
            "readonly" | "ro" => read_only = Some(boolean()?),
            "readwrite" | "rw" => read_only = Some(!boolean()?),
            "required" if matches!(spec.kind, Type::Secret | Type::Ssh) => spec.required = boolean()?,
            "size" if spec.kind == Type::Tmpfs => {
                spec.size = Some(bytes(&value).ok_or_else(|| {
                    fail(
                        format!("`{value}` is no size"),
                        "expected a number of bytes, with a unit such as k, m or g",
                    )
                })?);
            }
            "required" | "size" => {
                let message = format!("the option `{key}` is not one of {} mounts", spec.kind.name());
                return Err(fail(message, "not for this type of mount"));
            }
            "id" => spec.id = value,
            "sharing" => {
                let lower = value.to_ascii_lowercase();
                let sharing = SHARING.iter().find(|(name, _)| *name == lower).map(|(_, sharing)| *sharing);
                spec.sharing = Some(sharing.ok_or_else(|| {
                    fail(format!("unknown sharing mode `{value}`"), "expected shared, private or locked")
                        .suggest(nearest(&lower, SHARING.iter().map(|(name, _)| *name)))
                })?);
            }
            "mode" => spec.mode = Some(number(8)?),
            "uid" => spec.uid = Some(number(10)?),
            "gid" => spec.gid = Some(number(10)?),
            _ => spec.env = Some(value),
        }
    }
    spec.read_only = read_only.unwrap_or(!matches!(spec.kind, Type::Cache | Type::Tmpfs));
    check(&spec, read_only).map_err(|(message, label)| fail(message, label))?;
    Ok(spec)
}

/// What a type of mount does not take.
fn check(spec: &Spec, read_only: Option<bool>) -> Result<(), (String, &'static str)> {
    let name = spec.kind.name();
    let not_taken = |key: &str| {
        Err((format!("the option `{key}` is not one of {name} mounts"), "not for this type of mount"))
    };
    if !matches!(spec.kind, Type::Secret | Type::Ssh | Type::Cache) {
        for (key, given) in
            [("mode", spec.mode.is_some()), ("uid", spec.uid.is_some()), ("gid", spec.gid.is_some())]
        {
            if given {
                return not_taken(key);
            }
        }
    }
    if spec.sharing.is_some() && spec.kind != Type::Cache {
        return not_taken("sharing");
    }
    if spec.env.is_some() && spec.kind != Type::Secret {
        return not_taken("env");
    }
    match spec.kind {
        Type::Secret if !spec.from.is_empty() => not_taken("from"),
        Type::Secret if spec.id.is_empty() && spec.source.is_empty() && spec.target.is_empty() => {
            Err(("a secret mount needs an id or a target".to_owned(), "expected `id=…` or `target=…`"))
        }
        Type::Secret if !spec.id.is_empty() && !spec.source.is_empty() => {
            Err(("`source` and `id` of a secret mount mean the same".to_owned(), "expected only one of them"))
        }
        Type::Ssh if !spec.source.is_empty() => not_taken("source"),
        Type::Ssh if !spec.from.is_empty() => not_taken("from"),
        Type::Tmpfs if read_only == Some(true) => {
            Err(("a read-only tmpfs mount can't be made".to_owned(), "expected a mount that can be written"))
        }
        Type::Tmpfs if !spec.from.is_empty() => not_taken("from"),
        _ => Ok(()),
    }
}

impl Type {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Span;

    fn read(text: &str) -> Result<Spec, String> {
        let word = Word { text: text.to_owned(), span: Span::default() };
        parse(&word, &mut |value| Ok(value.replace("$x", "X"))).map_err(|error| error.to_string())
    }

    #[test]
    fn options() {
        let spec = read("target=/ctx").unwrap();
        assert_eq!((spec.kind, spec.target.as_str(), spec.read_only), (Type::Bind, "/ctx", true));
        let spec = read("TYPE=cache,id=$x,dst=/c,sharing=LOCKED,mode=0700,uid=1,gid=2,ro").unwrap();
        assert_eq!((spec.kind, spec.id.as_str(), spec.sharing), (Type::Cache, "X", Some(Sharing::Locked)));
        assert_eq!((spec.mode, spec.uid, spec.gid, spec.read_only), (Some(0o700), Some(1), Some(2), true));
        let spec = read("type=secret,id=a,env=B,required").unwrap();
        assert_eq!((spec.env.as_deref(), spec.required), (Some("B"), true));
        assert_eq!(read("type=tmpfs,target=/t,size=64k").unwrap().size, Some(65_536));
        assert!(!read("target=/x,rw").unwrap().read_only);
        assert!(!read("target=/x,readonly=false").unwrap().read_only);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let cases = [
            ("type=volume,target=/x", "unknown mount type `volume`"),
            ("type=cahce,target=/x", "unknown mount type `cahce` (did you mean `cache`?)"),
            ("tagret=/x", "unknown option `tagret` of a mount (did you mean `target`?)"),
            ("target", "the mount option `target` needs a value"),
            ("target=/x,ro=maybe", "`maybe` is no value for the mount option `ro`"),
            ("type=cache,target=/x,mode=9", "`9` is no value for the mount option `mode`"),
            ("target=/x,mode=0700", "the option `mode` is not one of bind mounts"),
            ("target=/x,required", "the option `required` is not one of bind mounts"),
            ("type=secret", "a secret mount needs an id or a target"),
            ("type=secret,id=a,from=b", "the option `from` is not one of secret mounts"),
            ("type=tmpfs,target=/x,size=big", "`big` is no size"),
            ("type=cache,target=/x,sharing=al", "unknown sharing mode `al`"),
            ("a\"b", "the options of a mount can't be read: a quote stands where none may"),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err(), message, "{text}");
        }
    }
}
