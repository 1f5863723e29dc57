//! Requests that come through a proxy: the path below which the proxy has this server, and what it says of its client.
//!
//! Problem: any client can send `X-Forwarded-For`, and would be taken for another one. Model: only the proxies that the
//! configuration names are believed; of all others these headers are removed, so that nothing behind reads them. Of
//! `X-Forwarded-For` the last address counts that is no such proxy: those before it are the client's own words.

use std::net::IpAddr;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Uri, header};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Headers that only proxies send.
const HEADERS: [HeaderName; 5] = [
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// Addresses of proxies: an address, or the first bits of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Parses `10.0.0.7` or `10.0.0.0/8`.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.trim().parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.trim().parse().ok())?;
        (bits <= most).then_some(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let shift = |most: u8| u32::from(most.saturating_sub(self.bits));
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let difference = u32::from(own) ^ u32::from(other);
                difference.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let difference = u128::from(own) ^ u128::from(other);
                difference.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Returns whether a text names a proxy: an address, or a network such as `10.0.0.0/8`.
pub(crate) fn is_network(text: &str) -> bool {
    Network::parse(text).is_some()
}

/// Returns whether a text is a path below which a proxy may have this server: empty, or `/name` without `/` at the end.
pub(crate) fn is_base_path(text: &str) -> bool {
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b));
    text.is_empty() || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain))
}

/// What the configuration says of proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwarding {
    base_path: String,
    trusted: Vec<Network>,
}

impl Forwarding {
    /// Reads the settings; what is not valid was refused before.
    pub(crate) fn new(base_path: &str, trusted_proxies: &[String]) -> Self {
        let trusted = trusted_proxies.iter().filter_map(|text| Network::parse(text)).collect();
        Self { base_path: base_path.to_owned(), trusted }
    }

    /// Returns the address of the client of a request from `peer`, and makes the request one to this server: without
    /// the base path, and with the name under which the client knows it. Of a client that is no named proxy
    /// `X-Forwarded-Proto` says whether its own connection is encrypted.
    pub(crate) fn apply<B>(&self, request: &mut axum::http::Request<B>, peer: IpAddr, is_encrypted: bool) -> IpAddr {
        self.strip_base_path(request.uri_mut());
        let headers = request.headers_mut();
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            for name in HEADERS {
                headers.remove(name);
            }
            if is_encrypted {
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
            }
            return peer;
        }
        if let Some(host) = headers.get(FORWARDED_HOST).and_then(last_word) {
            headers.insert(header::HOST, host);
        }
        let forwarded = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let addresses: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        for text in addresses.into_iter().rev() {
            // Some proxies add the port.
            let address = text.parse::<IpAddr>().or_else(|_| text.parse::<std::net::SocketAddr>().map(|it| it.ip()));
            match address.map(|address| address.to_canonical()) {
                Ok(address) if self.is_trusted(address) => {}
                Ok(address) => return address,
                Err(_) => break,
            }
        }
        peer
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Removes the base path; a proxy may have removed it already.
    fn strip_base_path(&self, uri: &mut Uri) {
        if self.base_path.is_empty() {
            return;
        }
        let text = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let Some(rest) = text.strip_prefix(&self.base_path) else { return };
        let rest = match rest.as_bytes().first() {
            None => "/".to_owned(),
            Some(b'/') => rest.to_owned(),
            Some(b'?') => format!("/{rest}"),
            Some(_) => return,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = rest.parse().ok();
        if let Ok(stripped) = Uri::from_parts(parts) {
            *uri = stripped;
        }
    }
}

/// The last of several values, which is the one of the nearest proxy.
fn last_word(value: &HeaderValue) -> Option<HeaderValue> {
    let last = value.to_str().ok()?.rsplit(',').next()?.trim();
    HeaderValue::from_str(last).ok().filter(|last| !last.is_empty())
}

/// A request as a proxy sends it, for tests.
#[cfg(test)]
fn request(uri: &str, headers: &[(&'static str, &str)]) -> axum::extract::Request {
    let mut request = axum::http::Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), value.parse().unwrap());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, headers: &[(&'static str, &str)]) -> (String, Vec<String>) {
        let trusted: Vec<String> = trusted.iter().map(|text| (*text).to_owned()).collect();
        let mut request = request("/", headers);
        let client = Forwarding::new("", &trusted).apply(&mut request, peer.parse().unwrap(), false);
        let names = request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        (client.to_string(), names.collect())
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let headers = [
            ("host", "127.0.0.1:8080"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "ops.example.com"),
            ("x-forwarded-proto", "https"),
        ];
        let (address, kept) = client(&[], "127.0.0.1", &headers);
        assert_eq!((address.as_str(), kept), ("127.0.0.1", vec!["host: 127.0.0.1:8080".to_owned()]));
        let (address, kept) = client(&["127.0.0.1"], "127.0.0.1", &headers);
        assert_eq!(address, "1.2.3.4");
        assert!(kept.contains(&"host: ops.example.com".to_owned()) && kept.len() == 4, "{kept:?}");
        assert_eq!(client(&["127.0.0.1"], "::ffff:127.0.0.1", &headers).0, "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "11.0.0.1", &headers).0, "11.0.0.1");
    }

    #[test]
    fn the_scheme_is_that_of_the_connection_unless_a_named_proxy_says_it() {
        for (trusted, is_encrypted, expected) in [
            (false, true, Some("https")),
            (false, false, None),
            (true, true, Some("http")),
            (true, false, Some("http")),
        ] {
            let mut request = request("/", &[("x-forwarded-proto", "http")]);
            let proxies: Vec<String> = trusted.then(|| "10.0.0.1".to_owned()).into_iter().collect();
            Forwarding::new("", &proxies).apply(&mut request, "10.0.0.1".parse().unwrap(), is_encrypted);
            let found = request.headers().get("x-forwarded-proto").map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "named: {trusted}, encrypted: {is_encrypted}");
        }
    }

    #[test]
    fn what_a_client_says_before_its_proxy_does_not_count() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        let address = |value: &str| client(&trusted, "10.1.1.1", &[("x-forwarded-for", value)]).0;
        assert_eq!(address("6.6.6.6, 1.2.3.4"), "1.2.3.4");
        assert_eq!(address("6.6.6.6, 1.2.3.4, 10.9.9.9, 2001:db8::7"), "1.2.3.4");
        assert_eq!(address("1.2.3.4:5678"), "1.2.3.4");
        assert_eq!(address("1.2.3.4, unknown"), "10.1.1.1");
        assert_eq!(address(""), "10.1.1.1");
        let two = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(client(&trusted, "10.1.1.1", &two).0, "1.2.3.4");
    }

    #[test]
    fn the_base_path_is_removed_once() {
        let path = |base: &str, uri: &str| {
            let mut request = request(uri, &[]);
            Forwarding::new(base, &[]).apply(&mut request, "127.0.0.1".parse().unwrap(), false);
            request.uri().to_string()
        };
        for (uri, expected) in [
            ("/wardroom/api/v1/incidents?limit=1", "/api/v1/incidents?limit=1"),
            ("/wardroom", "/"),
            ("/wardroom/", "/"),
            ("/wardroom?a=b", "/?a=b"),
            ("/wardroomx/api", "/wardroomx/api"),
            ("/api/v1/incidents", "/api/v1/incidents"),
            ("/wardroom/wardroom/x", "/wardroom/x"),
        ] {
            assert_eq!(path("/wardroom", uri), expected, "{uri}");
        }
        assert_eq!(path("", "/wardroom/x"), "/wardroom/x");
        assert_eq!(path("/a/b", "/a/b/x"), "/x");
    }

    #[test]
    fn settings_are_checked() {
        for good in ["", "/wardroom", "/tools/wardroom-1"] {
            assert!(is_base_path(good), "{good}");
        }
        for bad in ["/", "wardroom", "/wardroom/", "//x", "/a b", "/a?b", "/ä"] {
            assert!(!is_base_path(bad), "{bad}");
        }
        for good in ["10.0.0.7", "10.0.0.0/8", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert!(is_network(good), "{good}");
        }
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0/8", "::1/129"] {
            assert!(!is_network(bad), "{bad}");
        }
    }
}
