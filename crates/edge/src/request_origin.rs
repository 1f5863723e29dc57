//! Requests that a web page of another origin makes with the browser of a user.
//!
//! Problem: a browser adds the credentials of `Basic` authentication to every request to this server, also to one that
//! a page of another origin makes; without authentication it needs none at all. And a name that an attacker owns can
//! resolve to this server's address (DNS rebinding), so that their page has the same origin as this server. Model: a
//! request that may change something must come from a page of this server or from no page; without authentication,
//! `Host` must be a name of this server. The rule holds for every credential: no browser sends a bearer token by
//! itself, but a page that got one must not use it from elsewhere. Only telemetry with a token may come from any page.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::problem::Problem;
use crate::routes::{Access, Route};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks that a request that may change something was not made by a page of another origin; pages of the allowed names
/// count as this server's, because a proxy may change `Host`.
///
/// # Errors
/// Returns 403 if a page of another origin made it.
pub(crate) fn check_same_origin(
    allowed: &[String],
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    route: Route,
) -> Result<(), Problem> {
    // Pages that measure themselves send telemetry to another origin, with a token.
    if method.is_safe() || route.access == Access::Send && has_bearer_token(headers) {
        return Ok(());
    }
    let site = headers.get(SEC_FETCH_SITE).map(|value| value.as_bytes());
    let is_other_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    if is_other_site || !origins_are_own(allowed, uri, headers) {
        let detail = "a page of another origin may not change anything with a browser's credentials; use a page of \
                      this server, or `Authorization: Bearer TOKEN`";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", detail));
    }
    Ok(())
}

/// Checks that a form was sent from a page of this server, by the same rule as every other change; the `Origin` header
/// is required, whatever the credential.
///
/// # Errors
/// Returns 403 if the header is missing or names another origin.
pub fn check_form_origin(allowed: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::ORIGIN) && origins_are_own(allowed, uri, headers) {
        return Ok(());
    }
    let detail = "the form must be sent from a page of this server; if a proxy changes Host, add the name that users \
                  see to edge.allowed-hosts";
    Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", detail))
}

/// Whether every `Origin` header names this server as the request does, or by an allowed name. True without the header.
fn origins_are_own(allowed: &[String], uri: &Uri, headers: &HeaderMap) -> bool {
    let is_own_page = |host: &str| {
        let is_same = |own: Option<&str>| own.is_some_and(|own| own.eq_ignore_ascii_case(host));
        is_listed(allowed, name_of(host)) || hosts(uri, headers).all(is_same)
    };
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        host.is_some_and(is_own_page)
    })
}

/// Checks that the request names this server by an IP address, `localhost` or an allowed name. A request without any
/// name passes: every browser sends one.
///
/// # Errors
/// Returns 403 for another name.
pub(crate) fn check_host(allowed: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let is_allowed = |host: Option<&str>| host.is_some_and(|host| is_allowed_host(allowed, host));
    if hosts(uri, headers).all(is_allowed) {
        return Ok(());
    }
    let detail = "the Host header names neither an IP address nor localhost; add the name to edge.allowed-hosts";
    Err(Problem::new(StatusCode::FORBIDDEN, "host_not_allowed", detail))
}

/// Returns the names that a request gives to this server: of the URI (HTTP/2 and proxies) and of every `Host` header.
/// `None` for one that is not text.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = Option<&'a str>> {
    let authority = uri.authority().map(|authority| Some(authority.as_str()));
    authority.into_iter().chain(headers.get_all(header::HOST).iter().map(|value| value.to_str().ok()))
}

fn is_allowed_host(allowed: &[String], host: &str) -> bool {
    if let Some(ipv6) = host.strip_prefix('[') {
        return ipv6.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = name_of(host);
    let is_localhost = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    is_localhost || name.parse::<Ipv4Addr>().is_ok() || is_listed(allowed, name)
}

/// The name without the port and without the final dot, which does not change it.
fn name_of(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn is_listed(allowed: &[String], name: &str) -> bool {
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn has_bearer_token(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let check_access = |access: Access, method: Method, pairs: &[(&'static str, &str)]| {
            let mut headers = headers(pairs);
            headers.insert(header::HOST, "127.0.0.1:8080".parse().unwrap());
            let (allowed, uri) = (["proxy.example".to_owned()], Uri::from_static("/api/v1/incidents/INC-1/verdict"));
            let route = Route { method: "POST", path: "/", access };
            check_same_origin(&allowed, &method, &uri, &headers, route).is_ok()
        };
        let check = |method: Method, pairs: &[(&'static str, &str)]| check_access(Access::Respond, method, pairs);
        let basic = ("authorization", "Basic YTpi");
        assert!(check(Method::POST, &[basic]), "not a browser");
        assert!(check(Method::POST, &[basic, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(check(Method::POST, &[basic, ("origin", "https://proxy.example")]), "a proxy changed Host");
        assert!(check(Method::GET, &[basic, ("origin", "http://evil.example")]), "a link");
        let bearer = ("authorization", "Bearer wr_x");
        assert!(check(Method::POST, &[bearer]), "a program");
        assert!(!check(Method::POST, &[bearer, ("origin", "http://evil.example")]), "whatever the credential");
        assert!(check_access(Access::Send, Method::POST, &[bearer, ("origin", "http://app.example")]), "telemetry");
        assert!(!check_access(Access::Send, Method::POST, &[basic, ("origin", "http://evil.example")]));
        assert!(!check_access(Access::Public, Method::POST, &[("origin", "http://evil.example")]), "a login");
        for origin in ["http://localhost:18159", "http://127.0.0.1:18159", "http://127.0.0.1", "null", "file://", ""] {
            assert!(!check(Method::POST, &[basic, ("origin", origin)]), "{origin:?}");
            assert!(!check(Method::DELETE, &[("origin", origin)]), "{origin:?} without credentials");
        }
        for site in ["cross-site", "same-site", "x"] {
            assert!(!check(Method::POST, &[basic, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(check(Method::POST, &[basic, ("sec-fetch-site", "none")]), "typed by the user");
    }

    #[test]
    fn a_form_needs_the_origin_of_this_server_or_an_allowed_name() {
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = headers(pairs);
            headers.insert(header::HOST, "10.0.0.7:8080".parse().unwrap());
            check_form_origin(&["wardroom.example".to_owned()], &Uri::from_static("/"), &headers).is_ok()
        };
        assert!(check(&[("origin", "http://10.0.0.7:8080")]));
        assert!(check(&[("origin", "https://wardroom.example")]), "a proxy changed Host");
        assert!(!check(&[]) && !check(&[("origin", "null")]));
        let bearer = ("authorization", "Bearer wr_x");
        assert!(!check(&[bearer, ("origin", "http://evil.example")]) && !check(&[bearer]));
    }

    #[test]
    fn names_that_an_attacker_may_own_are_refused() {
        let allowed = ["wardroom.example".to_owned()];
        let check = |host: &str, uri: &'static str| {
            check_host(&allowed, &Uri::from_static(uri), &headers(&[("host", host)])).is_ok()
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "10.0.0.7",
            "wardroom.example",
            "Wardroom.Example.:443",
        ] {
            assert!(check(host, "/"), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[evil]:1",
            "",
            "evillocalhost",
            "wardroom.example.evil",
            "x",
        ] {
            assert!(!check(host, "/"), "{host}");
        }
        assert!(!check("localhost", "http://evil.example/"), "the name in the URI counts, too");
        assert!(check_host(&[], &Uri::from_static("/"), &HeaderMap::new()).is_ok(), "HTTP/1.0 without a name");
    }
}
