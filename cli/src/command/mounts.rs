//! What a container mounts: `--volume`, `--mount` and `--tmpfs` in Docker's forms.

use std::path::PathBuf;

use bricklayer::{RunMount, RunMountKind, Tmpfs};

use super::csv;
use super::environment::Environment;
use super::usage::Usage;
use super::values::{boolean, size};

/// Docker's default for directories in memory.
const DOCKER_TMPFS: Tmpfs = Tmpfs { size: None, mode: Some(0o1777), read_only: false, programs: false };

/// `HOST:DIR[:OPTIONS]`. A directory of the host that is not there is made, as Docker does.
pub(crate) fn volume(text: &str, environment: &Environment) -> Result<RunMount, Usage> {
    let fail = |why: &str| Usage::new(format!("-v `{text}`: {why}"));
    let mut parts = text.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err(Usage::unsupported(format!("-v `{text}`: a volume without a directory of the host"))
            .hint("HOST:DIR, or --tmpfs DIR for an empty directory"));
    };
    let options = parts.next().unwrap_or_default();
    if parts.next().is_some() {
        return Err(fail("too many colons").hint("a path with a colon needs --mount type=bind,src=…,dst=…"));
    }
    let mut read_only = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let value = match option {
            "ro" => true,
            "rw" => false,
            // the mount is cut off from what is mounted elsewhere later, both ways
            "rprivate" | "private" => continue,
            "z" | "Z" | "nocopy" | "shared" | "rshared" | "slave" | "rslave" => {
                return Err(Usage::unsupported(format!("-v `{text}`: `{option}`")));
            }
            _ => return Err(fail(&format!("there is no option `{option}`")).suggest(option, &["ro", "rw"])),
        };
        if read_only.replace(value).is_some_and(|before| before != value) {
            return Err(fail("`ro` and `rw` exclude each other"));
        }
    }
    if !source.contains('/') && source != "." && source != ".." {
        let usage = Usage::unsupported(format!("-v `{text}`: a named volume"));
        return Err(usage.hint(format!("a directory of the host has a slash: ./{source}")));
    }
    Ok(RunMount {
        target: absolute("-v", text, target)?,
        kind: RunMountKind::Bind {
            source: environment.path(source),
            read_only: read_only.unwrap_or(false),
            make: true,
        },
    })
}

/// `type=bind,…` or `type=tmpfs,…`.
pub(crate) fn mount(text: &str, environment: &Environment) -> Result<RunMount, Usage> {
    let fail = |why: String| Usage::new(format!("--mount `{text}`: {why}"));
    let (mut kind, mut source, mut target, mut read_only) = (None, None, None, false);
    let (mut bytes, mut mode, mut other) = (None, None, None);
    for (key, value) in csv::pairs("--mount", text)? {
        let needed = || value.clone().ok_or_else(|| fail(format!("`{key}` needs a value")));
        match key.as_str() {
            "type" => kind = Some(needed()?),
            "src" | "source" => source = Some(needed()?),
            "dst" | "target" | "destination" => target = Some(needed()?),
            "ro" | "readonly" => read_only = value.as_deref().map_or(Ok(true), |text| boolean(&key, text))?,
            "tmpfs-size" => bytes = Some(size("--mount tmpfs-size", &needed()?)?),
            "tmpfs-mode" => {
                mode = Some(octal(&needed()?).ok_or_else(|| fail("tmpfs-mode is octal".to_owned()))?)
            }
            _ => other = Some(key.clone()),
        }
    }
    let kind = kind.unwrap_or_else(|| "volume".to_owned());
    if !matches!(kind.as_str(), "bind" | "tmpfs") {
        let known = ["bind", "tmpfs"];
        return Err(match kind.as_str() {
            "volume" | "npipe" | "cluster" | "image" => {
                Usage::unsupported(format!("--mount `{text}`: type={kind}")).hint("type=bind or type=tmpfs")
            }
            _ => fail(format!("there is no type `{kind}`")).suggest(&kind, &known),
        });
    }
    if let Some(key) = other {
        let known = [
            "type",
            "src",
            "source",
            "dst",
            "target",
            "destination",
            "readonly",
            "ro",
            "tmpfs-size",
            "tmpfs-mode",
        ];
        return Err(fail(format!("`{key}` is not supported")).suggest(&key, &known));
    }
    let target = target.ok_or_else(|| fail("`dst` is missing".to_owned()))?;
    let target = absolute("--mount", text, &target)?;
    let kind = match (kind.as_str(), source) {
        ("bind", Some(source)) if bytes.is_none() && mode.is_none() => {
            RunMountKind::Bind { source: environment.path(source), read_only, make: false }
        }
        ("bind", Some(_)) => return Err(fail("tmpfs-size and tmpfs-mode are for type=tmpfs".to_owned())),
        ("bind", None) => return Err(fail("`src` is missing".to_owned())),
        (_, Some(_)) => return Err(fail("type=tmpfs has no `src`".to_owned())),
        (_, None) => RunMountKind::Tmpfs(Tmpfs {
            size: bytes,
            mode: mode.or(DOCKER_TMPFS.mode),
            read_only,
            ..DOCKER_TMPFS
        }),
    };
    Ok(RunMount { target, kind })
}

/// `DIR[:OPTION,…]`.
pub(crate) fn tmpfs(text: &str) -> Result<RunMount, Usage> {
    let fail = |why: String| Usage::new(format!("--tmpfs `{text}`: {why}"));
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = DOCKER_TMPFS;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", bytes) => tmpfs.size = Some(size("--tmpfs size", bytes)?),
            ("mode", mode) => {
                tmpfs.mode = Some(octal(mode).ok_or_else(|| fail(format!("mode `{mode}` is not octal")))?);
            }
            ("ro", "") => tmpfs.read_only = true,
            ("rw", "") => tmpfs.read_only = false,
            ("exec", "") => tmpfs.programs = true,
            ("noexec", "") => tmpfs.programs = false,
            // it is so in any case
            ("nosuid", "") => {}
            (other, _) => {
                let known = ["size", "mode", "ro", "rw", "exec", "noexec", "nosuid"];
                return Err(fail(format!("the option `{other}` is not supported")).suggest(other, &known));
            }
        }
    }
    Ok(RunMount { target: absolute("--tmpfs", text, target)?, kind: RunMountKind::Tmpfs(tmpfs) })
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn absolute(flag: &str, text: &str, target: &str) -> Result<String, Usage> {
    let inside = PathBuf::from(target);
    if !inside.is_absolute() {
        return Err(Usage::new(format!("{flag} `{text}`: `{target}` is not an absolute path")));
    }
    if inside.parent().is_none() {
        return Err(Usage::new(format!("{flag} `{text}`: nothing can be mounted on /")));
    }
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shown(result: Result<RunMount, Usage>) -> String {
        match result {
            Ok(RunMount { target, kind: RunMountKind::Bind { source, read_only, make } }) => {
                format!("{} at {target}, read-only {read_only}, make {make}", source.display())
            }
            Ok(RunMount { target, kind: RunMountKind::Tmpfs(tmpfs) }) => {
                let Tmpfs { size, mode, read_only, programs } = tmpfs;
                let mode = mode.unwrap_or_default();
                format!("memory {size:?} {mode:o} at {target}, read-only {read_only}, programs {programs}")
            }
            Err(error) => format!("{error} ({})", error.hint_text().unwrap_or_default()),
        }
    }

    #[test]
    fn mounts_are_understood_as_docker_does_or_refused_by_name() {
        let environment = Environment::fake(Path::new("/here"), &[], b"");
        let mut text = String::new();
        for typed in [
            "/a:/b",
            "./a:/b:ro",
            "../x:/b:rw,rprivate",
            "a:/b",
            "/b",
            "/a:b",
            "/a:/b:rx",
            "/a:/b:ro,rw",
            "/a:/",
            "/a:/b:Z",
            "/a:/b:ro:x",
        ] {
            text += &format!("-v {typed}\n    {}\n", shown(volume(typed, &environment)));
        }
        for typed in [
            "type=bind,src=a,dst=/b",
            "type=bind,source=/a,target=/b,readonly",
            "type=bind,source=/a,target=/b,ro=false",
            "type=tmpfs,destination=/t",
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700,ro",
            "dst=/t",
            "type=volume,src=v,dst=/t",
            "type=bnd,src=v,dst=/t",
            "type=bind,dst=/t",
            "type=bind,src=/a",
            "type=tmpfs,src=/a,dst=/b",
            "type=bind,src=/a,dst=/b,bind-propagation=shared",
            "type=bind,src=/a,dst=/b,tmpfs-size=1",
        ] {
            text += &format!("--mount {typed}\n    {}\n", shown(mount(typed, &environment)));
        }
        for typed in ["/t", "/t:size=64k,mode=755,exec,ro,nosuid", "t", "/t:uid=5", "/t:mode=9"] {
            text += &format!("--tmpfs {typed}\n    {}\n", shown(tmpfs(typed)));
        }
        insta::assert_snapshot!(text, @r#"
        -v /a:/b
            /a at /b, read-only false, make true
        -v ./a:/b:ro
            /here/a at /b, read-only true, make true
        -v ../x:/b:rw,rprivate
            /here/../x at /b, read-only false, make true
        -v a:/b
            -v `a:/b`: a named volume is not supported yet (a directory of the host has a slash: ./a)
        -v /b
            -v `/b`: a volume without a directory of the host is not supported yet (HOST:DIR, or --tmpfs DIR for an empty directory)
        -v /a:b
            -v `/a:b`: `b` is not an absolute path ()
        -v /a:/b:rx
            -v `/a:/b:rx`: there is no option `rx` (did you mean `ro`?)
        -v /a:/b:ro,rw
            -v `/a:/b:ro,rw`: `ro` and `rw` exclude each other ()
        -v /a:/
            -v `/a:/`: nothing can be mounted on / ()
        -v /a:/b:Z
            -v `/a:/b:Z`: `Z` is not supported yet ()
        -v /a:/b:ro:x
            -v `/a:/b:ro:x`: too many colons (a path with a colon needs --mount type=bind,src=…,dst=…)
        --mount type=bind,src=a,dst=/b
            /here/a at /b, read-only false, make false
        --mount type=bind,source=/a,target=/b,readonly
            /a at /b, read-only true, make false
        --mount type=bind,source=/a,target=/b,ro=false
            /a at /b, read-only false, make false
        --mount type=tmpfs,destination=/t
            memory None 1777 at /t, read-only false, programs false
        --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700,ro
            memory Some(1048576) 700 at /t, read-only true, programs false
        --mount dst=/t
            --mount `dst=/t`: type=volume is not supported yet (type=bind or type=tmpfs)
        --mount type=volume,src=v,dst=/t
            --mount `type=volume,src=v,dst=/t`: type=volume is not supported yet (type=bind or type=tmpfs)
        --mount type=bnd,src=v,dst=/t
            --mount `type=bnd,src=v,dst=/t`: there is no type `bnd` (did you mean `bind`?)
        --mount type=bind,dst=/t
            --mount `type=bind,dst=/t`: `src` is missing ()
        --mount type=bind,src=/a
            --mount `type=bind,src=/a`: `dst` is missing ()
        --mount type=tmpfs,src=/a,dst=/b
            --mount `type=tmpfs,src=/a,dst=/b`: type=tmpfs has no `src` ()
        --mount type=bind,src=/a,dst=/b,bind-propagation=shared
            --mount `type=bind,src=/a,dst=/b,bind-propagation=shared`: `bind-propagation` is not supported (known: type, src, source, dst, target, destination, readonly, ro, tmpfs-size, tmpfs-mode)
        --mount type=bind,src=/a,dst=/b,tmpfs-size=1
            --mount `type=bind,src=/a,dst=/b,tmpfs-size=1`: tmpfs-size and tmpfs-mode are for type=tmpfs ()
        --tmpfs /t
            memory None 1777 at /t, read-only false, programs false
        --tmpfs /t:size=64k,mode=755,exec,ro,nosuid
            memory Some(65536) 755 at /t, read-only true, programs true
        --tmpfs t
            --tmpfs `t`: `t` is not an absolute path ()
        --tmpfs /t:uid=5
            --tmpfs `/t:uid=5`: the option `uid` is not supported (known: size, mode, ro, rw, exec, noexec, nosuid)
        --tmpfs /t:mode=9
            --tmpfs `/t:mode=9`: mode `9` is not octal ()
        "#);
    }
}
