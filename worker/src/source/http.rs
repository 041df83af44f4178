//! Single files over HTTP (ADD URL). The file goes into the store as a blob first: its digest is what keys are made of.

use std::io::Write as _;
use std::time::Duration;

use bricklayer_cache::Store;
use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::HttpSource;
use bricklayer_solver::worker::StepError;
use reqwest::header::{AUTHORIZATION, HeaderValue, LAST_MODIFIED};

/// No byte for this long, and the download failed.
const STALL: Duration = Duration::from_secs(30);
/// Times that a download is tried.
const TRIES: u32 = 4;

/// A file that was downloaded.
#[derive(Debug, Clone)]
pub(crate) struct Download {
    /// The blob in the store.
    pub(crate) digest: Digest,
    /// The server's `Last-Modified`, in seconds since 1970.
    pub(crate) modified: Option<i64>,
}

/// Why one try failed, and whether another may help.
struct Failed {
    error: StepError,
    again: bool,
}

/// Downloads the file into the store. `authorization`: the header's value, for the URL's own host only.
pub(crate) async fn download(
    client: &reqwest::Client,
    store: &Store,
    source: &HttpSource,
    authorization: Option<&str>,
    task: &Task,
) -> Result<Download, StepError> {
    let mut wait = Duration::from_millis(250);
    for attempt in 1.. {
        match once(client, store, source, authorization, task).await {
            Ok(download) => return Ok(download),
            Err(Failed { error, again }) if !again || attempt == TRIES => return Err(error),
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait *= 3;
    }
    unreachable!("the loop ends by its last try")
}

async fn once(
    client: &reqwest::Client,
    store: &Store,
    source: &HttpSource,
    authorization: Option<&str>,
    task: &Task,
) -> Result<Download, Failed> {
    let url = &source.url;
    let broken = |error: reqwest::Error| Failed {
        again: !error.is_builder() && !error.is_redirect(),
        error: StepError::with_source(format!("cannot fetch `{url}`"), error.without_url()),
    };
    let mut request = client.get(url);
    if let Some(value) = authorization {
        let mut value = HeaderValue::from_str(value).map_err(|_| Failed {
            error: StepError::new(format!("the credentials for `{url}` are no header value")),
            again: false,
        })?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let mut response =
        tokio::time::timeout(STALL, request.send()).await.map_err(|_| stalled(url))?.map_err(broken)?;
    let status = response.status();
    if !status.is_success() {
        let again = status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408;
        return Err(Failed {
            error: StepError::new(format!("cannot fetch `{url}`: the server says {status}")),
            again,
        });
    }
    let modified = response
        .headers()
        .get(LAST_MODIFIED)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
        .map(|time| time.timestamp().as_second());
    let total = response.content_length();
    let local = |error: std::io::Error| Failed {
        error: StepError::with_source(format!("cannot store what `{url}` sends"), error),
        again: false,
    };
    let stored = |error: bricklayer_cache::StoreError| Failed {
        error: StepError::with_source(format!("cannot store what `{url}` sends"), error),
        again: false,
    };
    let mut blob = store.blob_writer().map_err(stored)?;
    let mut done = 0u64;
    while let Some(chunk) =
        tokio::time::timeout(STALL, response.chunk()).await.map_err(|_| stalled(url))?.map_err(broken)?
    {
        blob.write_all(&chunk).map_err(local)?;
        done += chunk.len() as u64;
        task.progress(source.filename.as_str(), done, total);
    }
    if total.is_some_and(|total| total != done) {
        return Err(Failed {
            error: StepError::new(format!("`{url}` ended after {done} bytes")),
            again: true,
        });
    }
    let (digest, _) = blob.commit(None).map_err(stored)?;
    match source.checksum {
        Some(expected) if expected != digest => Err(Failed {
            error: StepError::new(format!("`{url}` is {digest}, but {expected} was expected")),
            again: false,
        }),
        _ => Ok(Download { digest, modified }),
    }
}

fn stalled(url: &str) -> Failed {
    Failed { error: StepError::new(format!("`{url}` sent nothing for {} s", STALL.as_secs())), again: true }
}

/// A client that goes through the given proxies and follows redirects to http(s) only.
pub(crate) fn client(url: &str, proxy: &[(String, String)]) -> Result<reqwest::Client, StepError> {
    let failed = |e: reqwest::Error| StepError::with_source("cannot set up the HTTP client", e);
    let mut builder = bricklayer_cache::registry::file_client(url.starts_with("https:"))
        .map_err(|e| StepError::with_source("cannot set up the HTTP client", e))?
        .user_agent(concat!("bricklayer/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(STALL)
        .no_proxy();
    let value = |name: &str| {
        let found = proxy.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let exceptions = value("NO_PROXY").and_then(reqwest::NoProxy::from_string);
    let proxies = [
        value("HTTP_PROXY").map(reqwest::Proxy::http),
        value("HTTPS_PROXY").map(reqwest::Proxy::https),
        value("ALL_PROXY").map(reqwest::Proxy::all),
    ];
    for proxy in proxies.into_iter().flatten() {
        builder = builder.proxy(proxy.map_err(failed)?.no_proxy(exceptions.clone()));
    }
    builder.build().map_err(failed)
}
