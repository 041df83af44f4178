//! Platforms, as `os/architecture[/variant]`, normalised the way containerd does it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image or a step is for. Always normalised: `linux/x86_64` is stored as `linux/amd64`, `arm64/v8` as `arm64`, `arm` as `arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, … (Go's GOOS).
    pub os: String,
    /// `amd64`, `arm64`, `arm`, … (Go's GOARCH).
    pub architecture: String,
    /// `v6`, `v7` for arm; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The version of the operating system; only Windows images have one.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

/// A text that names no platform.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a platform: expected os/architecture, such as linux/arm64")]
pub struct InvalidPlatform(String);

impl Platform {
    /// A normalised platform.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (a, v) => (a, v),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Self { os, architecture, variant, os_version: String::new() }
    }

    /// The platform that this program runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        // only the system may carry a version: `windows(10.0.17763)/amd64`
        let valid = |(n, part): (usize, &&str)| {
            let allowed: &[u8] = if n == 0 { b"_-.()" } else { b"_-" };
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || allowed.contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if text.len() > 200 || !parts.iter().enumerate().all(valid) {
            return Err(InvalidPlatform(text.chars().take(100).collect()));
        }
        // `linux(5.10)` names a version of the system
        let (os, os_version) = match parts[0].split_once('(') {
            Some((os, version)) => (os, version.trim_end_matches(')')),
            None => (parts[0], ""),
        };
        let host = Self::host();
        let mut platform = match parts.as_slice() {
            [_] if matches!(os, "linux" | "windows" | "darwin" | "freebsd") => {
                Self::new(os, &host.architecture, &host.variant)
            }
            ["local"] => host,
            [architecture] if KNOWN_ARCHITECTURES.contains(architecture) => {
                Self::new("linux", architecture, "")
            }
            [_, architecture] => Self::new(os, architecture, ""),
            [_, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(InvalidPlatform(text.chars().take(100).collect())),
        };
        platform.os_version = os_version.to_owned();
        Ok(platform)
    }
}

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386", "i386", "amd64", "x86_64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64", "mips64",
    "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let cases = [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("LINUX/AMD64", "linux/amd64"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/../x", "nosuch"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
