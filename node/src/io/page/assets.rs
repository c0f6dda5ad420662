//! What the page consists of: files of `assets/`, in the binary as they are.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::super::api::{AnswerBody, refusal};

/// Nothing runs, is drawn or is asked but what this node serves; no other page frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, type and text of each.
const ASSETS: [(&str, &str, &str); 18] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/page/style.css", STYLE, include_str!("assets/style.css")),
    ("/page/icon.svg", IMAGE, include_str!("assets/icon.svg")),
    ("/page/app.js", SCRIPT, include_str!("assets/app.js")),
    ("/page/dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("/page/words.js", SCRIPT, include_str!("assets/words.js")),
    ("/page/stream.js", SCRIPT, include_str!("assets/stream.js")),
    ("/page/keys.js", SCRIPT, include_str!("assets/keys.js")),
    ("/page/status.js", SCRIPT, include_str!("assets/status.js")),
    ("/page/map.js", SCRIPT, include_str!("assets/map.js")),
    ("/page/node.js", SCRIPT, include_str!("assets/node.js")),
    ("/page/devices.js", SCRIPT, include_str!("assets/devices.js")),
    ("/page/device.js", SCRIPT, include_str!("assets/device.js")),
    ("/page/wish.js", SCRIPT, include_str!("assets/wish.js")),
    ("/page/plot.js", SCRIPT, include_str!("assets/plot.js")),
    ("/page/rules.js", SCRIPT, include_str!("assets/rules.js")),
    ("/page/events.js", SCRIPT, include_str!("assets/events.js")),
    ("/page/plant.js", SCRIPT, include_str!("assets/plant.js")),
];

pub(super) fn answer(path: &str, headers: &HeaderMap) -> Response<AnswerBody> {
    let Some((_, kind, text)) = ASSETS.iter().find(|(known, ..)| *known == path) else {
        return refusal(StatusCode::NOT_FOUND, "the page has no such file; it is at /");
    };
    let tag = tag(text);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let (status, body) = if is_known { (StatusCode::NOT_MODIFIED, "") } else { (StatusCode::OK, *text) };
    let mut response = Response::new(AnswerBody::Whole(Full::new(Bytes::from_static(body.as_bytes()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(ETAG, tag);
    // Asked for each time, and sent only if it is another: a node that was updated shows its own page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    guard(headers);
    response
}

/// What a browser is to know of whatever the page serves.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[expect(clippy::expect_used, reason = "hexadecimal digits between quotes are a header's value")]
fn tag(text: &str) -> HeaderValue {
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text)[..8]);
    HeaderValue::from_str(&format!("\"{digest}\"")).expect("a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest page that a modem's user waits for: four tenths of a second at 3 Mbit/s.
    const MAX_BYTES: usize = 150_000;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < MAX_BYTES, "{bytes} bytes");
    }

    #[test]
    fn every_file_that_the_page_names_is_served_and_no_other_host_is_named() {
        let served = |path: &str| ASSETS.iter().any(|(known, ..)| *known == path);
        for (path, _, text) in ASSETS {
            for named in
                text.split(['"', '\'']).filter(|part| part.starts_with("/page/") && part.contains('.'))
            {
                assert!(served(named), "{path} names {named}");
            }
            for import in text.lines().filter_map(|line| line.split_once(" from \"./")) {
                let file = import.1.trim_end_matches("\";");
                assert!(served(&format!("/page/{file}")), "{path} imports {file}");
            }
            let foreign = text.replace("http://www.w3.org/", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{path} names another host"
            );
        }
    }

    #[test]
    fn no_text_is_ever_read_as_markup() {
        let sinks =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"];
        for (path, _, text) in ASSETS {
            for sink in sinks {
                assert!(!text.contains(sink), "{path} uses {sink}");
            }
        }
        let html = ASSETS[0].2;
        assert!(!html.contains("style=") && !html.contains(" on"), "the policy forbids both: {html}");
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        let first = answer("/", &headers);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(answer("/", &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("/page/app.js", &headers).status(), StatusCode::OK);
        assert_eq!(answer("/page/../etc/passwd", &headers).status(), StatusCode::NOT_FOUND);
    }
}
