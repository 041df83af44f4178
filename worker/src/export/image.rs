//! Config and manifest (OCI image-spec `config.md` and `manifest.md`, or Docker's schema 2) over packed layers.

use std::collections::HashMap;

use bricklayer_cache::store::{Descriptor, Packed, Store, StoreError};
use bricklayer_solver::Digest;
use bricklayer_solver::image::{History, ImageConfig};
use oci_spec::image::{DescriptorBuilder, ImageManifestBuilder, MediaType, SCHEMA_VERSION};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What an image is made of, besides its layers.
#[derive(Debug, Clone)]
pub struct ImageExport {
    /// The config; `rootfs` is filled in here.
    pub config: ImageConfig,
    /// Entries of its history that are the base image's.
    pub base_history: usize,
    /// When each layer was made, in milliseconds since 1970: what `created` fields say, so that a build that found
    /// everything in the cache makes the same image again. `None`: they stay as they are.
    pub layer_times: Option<Vec<i64>>,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
    /// Annotations of the manifest.
    pub annotations: Vec<(String, String)>,
}

/// An image whose blobs are all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config: its digest is Docker's image ID.
    pub config: Descriptor,
}

/// Writes config and manifest of an image into the store.
///
/// # Errors
///
/// Those of the store; the documents themselves can't fail.
pub fn assemble(store: &Store, export: &ImageExport, layers: &[Packed]) -> Result<Assembled, StoreError> {
    let mut config = export.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|l| l.diff_id).collect();
    let known = config.history.len();
    align_history(&mut config.history, layers.len());
    if let Some(times) = &export.layer_times {
        let base = export.base_history + (config.history.len() - known);
        set_times(&mut config, base, times);
    }
    let config_bytes = serde_json::to_vec(&config).expect("a config is plain data");
    let config = put(
        store,
        &config_bytes,
        if export.docker_media_types { DOCKER_CONFIG } else { "application/vnd.oci.image.config.v1+json" },
    )?;
    let layers = layers.iter().map(|l| Descriptor {
        media_type: layer_type(&l.blob.media_type, export.docker_media_types),
        ..l.blob.clone()
    });
    let media_type = if export.docker_media_types {
        DOCKER_MANIFEST
    } else {
        "application/vnd.oci.image.manifest.v1+json"
    };
    let manifest_bytes = manifest(media_type, &config, layers, &export.annotations);
    let manifest = put(store, &manifest_bytes, media_type)?;
    Ok(Assembled { manifest, config })
}

fn manifest(
    media_type: &str,
    config: &Descriptor,
    layers: impl Iterator<Item = Descriptor>,
    annotations: &[(String, String)],
) -> Vec<u8> {
    let descriptor = |d: &Descriptor| {
        DescriptorBuilder::default()
            .media_type(d.media_type.as_str())
            .size(d.size)
            .digest(d.digest.to_string().parse::<oci_spec::image::Digest>().expect("a sha256 digest"))
            .build()
            .expect("all fields are set")
    };
    let mut builder = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::from(media_type))
        .config(descriptor(config))
        .layers(layers.map(|l| descriptor(&l)).collect::<Vec<_>>());
    if !annotations.is_empty() {
        builder = builder.annotations(annotations.iter().cloned().collect::<HashMap<_, _>>());
    }
    // through `Value`, whose maps are ordered: the same image has the same manifest every time
    let manifest = builder.build().expect("all fields are set");
    let value = serde_json::to_value(&manifest).expect("a manifest is plain data");
    serde_json::to_vec(&value).expect("a manifest is plain data")
}

fn put(store: &Store, bytes: &[u8], media_type: &str) -> Result<Descriptor, StoreError> {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    store.put_blob(&mut &*bytes, digest, size)?;
    Ok(Descriptor { media_type: media_type.to_owned(), digest, size })
}

/// The layer media type of the other family, so that a manifest never mixes them.
fn layer_type(media_type: &str, docker: bool) -> String {
    const PAIRS: &[(&str, &str)] = &[
        ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    ];
    PAIRS
        .iter()
        .find(|(oci, other)| media_type == *oci || media_type == *other)
        .map_or(media_type, |(oci, other)| if docker { other } else { oci })
        .to_owned()
}

/// Makes the entries that are not `empty_layer` as many as there are layers. A base image of another builder may have
/// too few (they are added below all others) or too many (the lowest ones lose their layer).
fn align_history(history: &mut Vec<History>, layers: usize) {
    let with_layer = history.iter().filter(|h| !h.empty_layer).count();
    if with_layer < layers {
        let missing =
            (with_layer..layers).map(|_| History { comment: "unknown".to_owned(), ..History::default() });
        history.splice(0..0, missing);
    }
    let mut excess = with_layer.saturating_sub(layers);
    for entry in history.iter_mut().filter(|h| !h.empty_layer) {
        if excess == 0 {
            break;
        }
        entry.empty_layer = true;
        excess -= 1;
    }
}

/// Entries with a layer get its time, the others that of the entry before them; where nothing stands before them (on
/// `FROM scratch`), that of the first layer.
fn set_times(config: &mut ImageConfig, base: usize, times: &[i64]) {
    let mut layers = times.iter();
    let first = times.first().filter(|_| base == 0);
    let mut last =
        first.and_then(|ms| jiff::Timestamp::from_millisecond(*ms).ok()).map(|time| time.to_string());
    for (number, entry) in config.history.iter_mut().enumerate() {
        let time = if entry.empty_layer { None } else { layers.next() };
        if number < base {
            last = entry.created.clone().or(last);
            continue;
        }
        if let Some(time) = time.and_then(|ms| jiff::Timestamp::from_millisecond(*ms).ok()) {
            last = Some(time.to_string());
        }
        if last.is_some() {
            entry.created.clone_from(&last);
        }
    }
    if last.is_some() {
        config.created = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(flags: &[bool]) -> Vec<History> {
        flags.iter().map(|empty| History { empty_layer: *empty, ..History::default() }).collect()
    }

    #[test]
    fn history_of_foreign_bases_is_aligned_with_the_layers() {
        for (flags, layers, expected) in [
            (&[false, true, false][..], 2, &[false, true, false][..]),
            (&[true], 2, &[false, false, true]),
            (&[false, false, true, false], 1, &[true, true, true, false]),
            (&[], 0, &[]),
        ] {
            let mut entries = history(flags);
            align_history(&mut entries, layers);
            assert_eq!(entries.iter().map(|h| h.empty_layer).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn times_are_those_of_the_layers() {
        let mut config =
            ImageConfig { history: history(&[false, true, false, true]), ..ImageConfig::default() };
        config.history[0].created = Some("2001-01-01T00:00:00Z".into());
        config.created = Some("now".into());
        set_times(&mut config, 1, &[5, 1_000]);
        let times: Vec<_> = config.history.iter().map(|h| h.created.clone().unwrap()).collect();
        let layer = "1970-01-01T00:00:01Z";
        assert_eq!(times, ["2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z", layer, layer]);
        assert_eq!(config.created.as_deref(), Some(layer));

        let mut scratch = ImageConfig { history: history(&[true, false]), ..ImageConfig::default() };
        scratch.history[0].created = Some("now".into());
        set_times(&mut scratch, 0, &[1_000]);
        assert!(scratch.history.iter().all(|h| h.created.as_deref() == Some(layer)));
    }

    #[test]
    fn layer_types_follow_the_manifests_family() {
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(layer_type(gzip, false), "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(layer_type("application/vnd.oci.image.layer.v1.tar+gzip", true), gzip);
        assert_eq!(layer_type("application/x-other", true), "application/x-other");
    }

    #[test]
    fn manifests_are_the_same_every_time() {
        let config = Descriptor { media_type: "c".into(), digest: Digest::of(b"c"), size: 1 };
        let annotations: Vec<_> = (0..20).map(|n| (format!("k{n}"), n.to_string())).collect();
        let one = manifest("m", &config, std::iter::once(config.clone()), &annotations);
        for _ in 0..5 {
            assert_eq!(manifest("m", &config, std::iter::once(config.clone()), &annotations), one);
        }
    }
}
