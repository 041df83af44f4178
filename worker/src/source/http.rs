//! Single files over HTTP (ADD URL). The file goes into the store as a blob first: its digest is what keys are made of.

use std::io::Write as _;
use std::time::Duration;

use bricklayer_cache::Store;
use bricklayer_cache::store::KnownDownload;
use bricklayer_solver::Digest;
use bricklayer_solver::event::Task;
use bricklayer_solver::op::HttpSource;
use bricklayer_solver::worker::StepError;
use reqwest::StatusCode;
use reqwest::header::{
    AUTHORIZATION, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

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

/// What is asked for.
pub(crate) struct Request<'a> {
    pub(crate) source: &'a HttpSource,
    /// The `Authorization` header's value, for the URL's own host only.
    pub(crate) authorization: Option<&'a str>,
    /// What was at the URL before: if it still is, nothing is sent.
    pub(crate) earlier: Option<KnownDownload>,
}

/// Why one try failed, and whether another may help.
struct Failed {
    error: StepError,
    again: bool,
}

/// Downloads the file into the store, unless the server says that it has not changed, and notes what the server said of it.
pub(crate) async fn download(
    client: &reqwest::Client,
    store: &Store,
    request: &Request<'_>,
    task: &Task,
) -> Result<Download, StepError> {
    let mut wait = Duration::from_millis(250);
    for attempt in 1.. {
        match once(client, store, request, task).await {
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
    wanted: &Request<'_>,
    task: &Task,
) -> Result<Download, Failed> {
    let Request { source, authorization, earlier } = wanted;
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
    for (name, value) in earlier.iter().filter_map(condition) {
        request = request.header(name, value);
    }
    let mut response =
        tokio::time::timeout(STALL, request.send()).await.map_err(|_| stalled(url))?.map_err(broken)?;
    let status = response.status();
    if let (StatusCode::NOT_MODIFIED, Some(earlier)) = (status, earlier) {
        let modified = earlier.modified.as_deref().and_then(seconds);
        return Ok(Download { digest: earlier.digest, modified });
    }
    if !status.is_success() {
        let again = status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408;
        return Err(Failed {
            error: StepError::new(format!("cannot fetch `{url}`: the server says {status}")),
            again,
        });
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (etag, last_modified) = (header(ETAG), header(LAST_MODIFIED));
    let modified = last_modified.as_deref().and_then(seconds);
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
        _ => {
            let fetched = jiff::Timestamp::now().as_second();
            let known = KnownDownload { digest, etag, modified: last_modified, fetched };
            store.note_download(url, &known).map_err(stored)?;
            Ok(Download { digest, modified })
        }
    }
}

/// The header that asks for a file only if it is another than the one that is known. A time can say so only if it lies long enough
/// before the file was fetched: what changes twice in a second has one time (RFC 9110, section 8.8.2.2).
fn condition(earlier: &KnownDownload) -> Option<(HeaderName, &str)> {
    if let Some(etag) = &earlier.etag {
        return Some((IF_NONE_MATCH, etag));
    }
    let modified = earlier.modified.as_deref()?;
    (seconds(modified)? + 60 <= earlier.fetched).then_some((IF_MODIFIED_SINCE, modified))
}

/// A time of HTTP in seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
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
    // as everywhere, what is on this machine is reached without a proxy
    let exceptions = format!("localhost,127.0.0.0/8,::1,{}", value("NO_PROXY").unwrap_or_default());
    let exceptions = reqwest::NoProxy::from_string(&exceptions);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_decides_how_it_is_asked() {
        let lately = "Mon, 02 Jan 2006 22:04:05 GMT";
        let at = seconds(lately).unwrap();
        let known = |etag: Option<&str>, modified: Option<&str>, fetched| KnownDownload {
            digest: Digest::of(b"x"),
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
            fetched,
        };
        let cases = [
            (known(None, None, at), None),
            (known(Some("W/\"1\""), Some(lately), at), Some((IF_NONE_MATCH, "W/\"1\""))),
            (known(None, Some(lately), at + 60), Some((IF_MODIFIED_SINCE, lately))),
            (known(None, Some(lately), at + 59), None),
            (known(None, Some("yesterday"), at + 60), None),
        ];
        for (earlier, expected) in cases {
            assert_eq!(condition(&earlier), expected, "{earlier:?}");
        }
    }
}
