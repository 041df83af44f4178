//! Which image of an index is for a platform.

use bricklayer_solver::platform::Platform;

use crate::document::{Index, IndexEntry};

/// The entry for `wanted`: the same platform, else the best one that its processor also runs (as containerd has it:
/// `arm/v8` down to `arm/v5`, `amd64/v4` down to `amd64`, `arm64` then 32-bit arm; `amd64` then `386`). First of equals.
/// Attestations never match.
///
/// # Errors
/// The platforms that there are, each once.
pub(super) fn select<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a IndexEntry, Vec<String>> {
    let images = || index.manifests.iter().filter(|entry| !entry.is_attestation());
    for platform in acceptable(wanted) {
        let fits = |entry: &&IndexEntry| {
            entry.platform.as_ref().is_some_and(|p| {
                p.os == platform.os
                    && p.architecture == platform.architecture
                    && p.variant == platform.variant
                    && (wanted.os_version.is_empty() || p.os_version == wanted.os_version)
            })
        };
        if let Some(found) = images().find(fits) {
            return Ok(found);
        }
    }
    // An index of one image that does not say what it is for says nothing against it.
    let mut all = images();
    if let (Some(only), None) = (all.next(), all.next())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut available: Vec<String> = Vec::new();
    for entry in images() {
        let name = entry
            .platform
            .as_ref()
            .map_or_else(|| "no platform".to_owned(), |p| crate::document::clean(&p.to_string()));
        if !available.contains(&name) {
            available.push(name);
        }
    }
    if available.is_empty() {
        available.push("no image".to_owned());
    }
    available.truncate(50);
    Err(available)
}

/// The platform and those that it can stand in for, best first.
fn acceptable(wanted: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: &str| Platform {
        os: wanted.os.clone(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        os_version: String::new(),
    };
    let arm_down_from = |variant: &str| -> Vec<Platform> {
        let version: u8 = variant.strip_prefix('v').and_then(|v| v.parse().ok()).unwrap_or(7);
        (5..=version.min(8)).rev().map(|v| with("arm", &format!("v{v}"))).collect()
    };
    let mut list = vec![with(&wanted.architecture, &wanted.variant)];
    match wanted.architecture.as_str() {
        "amd64" => {
            let version: u8 = wanted.variant.strip_prefix('v').and_then(|v| v.parse().ok()).unwrap_or(1);
            list.extend((2..=version.min(9)).rev().map(|v| with("amd64", &format!("v{v}"))));
            list.push(with("amd64", ""));
            list.push(with("386", ""));
        }
        "arm64" => {
            list.push(with("arm64", ""));
            list.extend(arm_down_from("v8"));
        }
        "arm" => list.extend(arm_down_from(&wanted.variant)),
        // an image of this architecture without a variant is meant for all of them
        architecture => list.push(with(architecture, "")),
    }
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let digest = bricklayer_solver::Digest::of(b"x");
        let manifests: Vec<_> = platforms
            .iter()
            .map(|p| {
                let mut parts = p.split('/');
                serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
                    "platform": {"os": parts.next(), "architecture": parts.next(), "variant": parts.next()},
                    "annotations": {"is": p}})
            })
            .collect();
        serde_json::from_value(serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
    }

    #[test]
    fn the_exact_platform_wins_then_the_nearest_that_runs() {
        let cases: [(&str, &[&str], &str); 12] = [
            ("linux/amd64", &["linux/386", "linux/amd64"], "linux/amd64"),
            ("linux/amd64", &["linux/386", "linux/arm64"], "linux/386"),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
            ("linux/amd64", &["linux/amd64/v2", "linux/arm64"], "it has linux/amd64/v2, linux/arm64"),
            ("linux/arm64", &["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
            ("linux/arm/v6", &["linux/arm/v7"], "it has linux/arm/v7"),
            ("linux/amd64", &["windows/amd64"], "it has windows/amd64"),
            ("linux/amd64", &["unknown/unknown"], "it has no image"),
            ("linux/s390x", &["linux/amd64", "linux/amd64"], "it has linux/amd64"),
            ("linux/riscv64", &["linux/riscv64"], "linux/riscv64"),
        ];
        for (wanted, available, expected) in cases {
            let index = index(available);
            let found = match select(&index, &wanted.parse().unwrap()) {
                Ok(entry) => entry.annotations["is"].clone(),
                Err(available) => format!("it has {}", available.join(", ")),
            };
            assert_eq!(found, expected, "{wanted} of {available:?}");
        }
    }
}
