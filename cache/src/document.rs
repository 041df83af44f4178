//! Manifests and indexes (OCI image-spec v1.1 manifest.md and image-index.md; Docker's schema 2 equivalents).
//!
//! A digest is of bytes: whoever shows or sends a document uses the bytes that came, never a document that was
//! written again. What is parsed here is only read. Every parse is total and takes at most [`MAX_DOCUMENT`] bytes.

use std::collections::BTreeMap;

use bricklayer_solver::platform::Platform;
use serde::{Deserialize, Deserializer, Serialize};

use crate::store::Descriptor;

/// The size that a manifest, an index or an image configuration may have at most, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// The number of layers of an image, or of images in an index, at most.
pub const MAX_ENTRIES: usize = 4096;

/// Media types of the documents and blobs that an image consists of.
pub mod media {
    pub use oci_client::manifest::{
        IMAGE_CONFIG_MEDIA_TYPE as CONFIG, IMAGE_DOCKER_CONFIG_MEDIA_TYPE as DOCKER_CONFIG,
        IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE as DOCKER_LAYER_GZIP,
        IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE as DOCKER_LAYER, IMAGE_LAYER_GZIP_MEDIA_TYPE as LAYER_GZIP,
        IMAGE_LAYER_MEDIA_TYPE as LAYER, IMAGE_MANIFEST_LIST_MEDIA_TYPE as DOCKER_INDEX,
        IMAGE_MANIFEST_MEDIA_TYPE as DOCKER_MANIFEST, OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX,
        OCI_IMAGE_MEDIA_TYPE as MANIFEST,
    };

    /// A layer compressed with zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A layer compressed with zstd, as Docker's own type.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of thing this is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: several images under one name, one for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The images (or further indexes).
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<IndexEntry>,
    /// Annotations.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "normalised")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl IndexEntry {
    /// Is it an attestation (provenance, SBOM) of another image of the index?
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are no manifest and no index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More than [`MAX_DOCUMENT`].
    #[error("the document has {size} bytes, {MAX_DOCUMENT} are allowed")]
    TooLarge {
        /// Bytes that were announced or seen.
        size: u64,
    },
    /// No JSON, or not with the fields that the specification asks for.
    #[error("the document is not what the OCI image specification asks for")]
    Json(#[from] serde_json::Error),
    /// A document with the fields of a manifest and of an index (CVE-2021-41190).
    #[error("the document is a manifest and an index at once")]
    Ambiguous,
    /// A media type other than the one that was promised.
    #[error("the document says that it is `{found}`, but `{expected}` was promised")]
    MediaType {
        /// By the document.
        found: String,
        /// By the server or the descriptor.
        expected: String,
    },
    /// A media type that cannot be used here.
    #[error("`{0}` is not supported")]
    Unsupported(String),
    /// Too many layers or images.
    #[error("the document lists {0} entries, {MAX_ENTRIES} are allowed")]
    TooMany(usize),
}

impl Document {
    /// Parses and checks a document. `promised` is the media type that the server or the descriptor gave, if any.
    ///
    /// # Errors
    /// See [`DocumentError`]; among them a document that is both, and one whose type is not the promised one.
    pub fn parse(bytes: &[u8], promised: Option<&str>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: u32,
            #[serde(default)]
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(rename = "fsLayers")]
            fs_layers: Option<serde::de::IgnoredAny>,
        }

        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge { size: bytes.len() as u64 });
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        let own = probe.media_type.filter(|own| !own.is_empty());
        // Generic types say nothing about the document (a registry that serves files, some proxies).
        let promised = promised.map(|promised| promised.split(';').next().unwrap_or_default().trim()).filter(
            |promised| {
                !matches!(*promised, "" | "application/json" | "application/octet-stream" | "text/plain")
            },
        );
        if let (Some(own), Some(promised)) = (&own, promised)
            && own != promised
        {
            return Err(DocumentError::MediaType { found: clean(own), expected: clean(promised) });
        }
        if probe.schema_version != 2 || probe.fs_layers.is_some() {
            return Err(DocumentError::Unsupported(format!(
                "image manifest schema {}",
                probe.schema_version
            )));
        }
        let has_manifest = probe.config.is_some() || probe.layers.is_some();
        if has_manifest && probe.manifests.is_some() {
            return Err(DocumentError::Ambiguous);
        }
        let kind = own.as_deref().or(promised);
        let document = match kind {
            Some(media::MANIFEST | media::DOCKER_MANIFEST) => Self::Manifest(serde_json::from_slice(bytes)?),
            Some(media::INDEX | media::DOCKER_INDEX) => Self::Index(serde_json::from_slice(bytes)?),
            Some(other) => return Err(DocumentError::Unsupported(clean(other))),
            None if probe.manifests.is_some() => Self::Index(serde_json::from_slice(bytes)?),
            None => Self::Manifest(serde_json::from_slice(bytes)?),
        };
        let entries = match &document {
            Self::Manifest(manifest) => manifest.layers.len(),
            Self::Index(index) => index.manifests.len(),
        };
        if entries > MAX_ENTRIES {
            return Err(DocumentError::TooMany(entries));
        }
        Ok(document)
    }

    /// The media type of the document: its own, else the one that a document of this shape has in OCI.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(Manifest { media_type, .. }) if media_type.is_empty() => media::MANIFEST,
            Self::Index(Index { media_type, .. }) if media_type.is_empty() => media::INDEX,
            Self::Manifest(Manifest { media_type, .. }) | Self::Index(Index { media_type, .. }) => media_type,
        }
    }
}

impl Manifest {
    /// Is it an image (and not another artifact: a chart, a signature)?
    pub fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), media::CONFIG | media::DOCKER_CONFIG)
    }
}

/// Text of others, fit for a message: no control characters, not long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn normalised<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        variant: Option<String>,
        #[serde(default, rename = "os.version")]
        os_version: Option<String>,
    }
    Ok(Option::<Raw>::deserialize(deserializer)?.map(|raw| {
        let mut platform =
            Platform::new(&raw.os, &raw.architecture, raw.variant.as_deref().unwrap_or_default());
        platform.os_version = raw.os_version.unwrap_or_default();
        platform
    }))
}
