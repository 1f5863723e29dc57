//! Which hosts and addresses a tool may connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Names of instance metadata.
const METADATA_NAMES: [&str; 6] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.platformequinix.com",
];
/// Addresses of instance metadata that are not in a range for the link: Azure, Alibaba, Oracle; AWS and Google on IPv6.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Why there is no connection to an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection to {host}: it {reason}")]
pub struct RefusedAddress {
    host: String,
    reason: &'static str,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    /// This machine.
    Loopback,
    /// Never allowed.
    Refused(&'static str),
}

/// Checks a base URL of the configuration, which paths are appended to. The reason does not repeat it: a credential may
/// be in it.
///
/// # Errors
/// Returns the reason and the remedy.
pub fn check_url(text: &str) -> Result<(), String> {
    let url: Url =
        text.parse().map_err(|error| format!("it is not a URL ({error}), such as https://host:8443/path"))?;
    // The `url` crate would read `http:host`, and other spellings, as `http://host`.
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let (Some(rest), Some(host)) = (rest, url.host()) else {
        return Err("it is not a URL with http:// or https:// and a host".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() || rest.split('/').next().is_some_and(|a| a.contains('@'))
    {
        return Err("it has a user or a password, which the audit log would show; use the field token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has `?` or `#`, but paths are appended to it; remove what follows".to_owned());
    }
    if text.contains('\\') || text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err("it has a backslash or white space; remove it".to_owned());
    }
    let canonical = host.to_string();
    if rest.strip_prefix(canonical.as_str()).is_none_or(|rest| !(rest.is_empty() || rest.starts_with([':', '/']))) {
        return Err(
            "its host is not in canonical form: write a name in lower case (an international one in its xn-- form), \
             an IPv4 address as four decimal numbers, and an IPv6 address in its short form"
                .to_owned(),
        );
    }
    let address = match host {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(_) => None,
    };
    check(&canonical, address).map_err(|refused| format!("its host {}", refused.reason))
}

/// Checks the addresses that a host resolves to. One that is refused refuses them all.
///
/// # Errors
/// Returns the first address's reason.
pub fn check(host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), RefusedAddress> {
    let refused = |reason| Err(RefusedAddress { host: host.to_owned(), reason });
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if METADATA_NAMES.contains(&name.as_str()) {
        return refused("is the instance metadata of a cloud");
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_literal = bare.parse::<IpAddr>().is_ok();
    for address in addresses {
        match kind(address) {
            Kind::Public | Kind::Private => {}
            Kind::Loopback if is_literal || name == "localhost" => {}
            Kind::Loopback => {
                return refused("is a name for this machine; write 127.0.0.1 or localhost if that is meant");
            }
            Kind::Refused(reason) => return refused(reason),
        }
    }
    Ok(())
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let octets = address.octets();
    if METADATA_V4.contains(&address) {
        return Kind::Refused("is the instance metadata of a cloud");
    }
    match octets {
        [0, ..] => Kind::Refused("has no address"),
        [127, ..] => Kind::Loopback,
        [169, 254, ..] => Kind::Refused("is an address of the link, as instance metadata is"),
        [224..=239, ..] => Kind::Refused("is an address of several hosts"),
        [240..=255, ..] => Kind::Refused("is a reserved address"),
        [192, 0, 0, _] => Kind::Refused("is a reserved address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if METADATA_V6.contains(&address) {
        return Kind::Refused("is the instance metadata of a cloud");
    }
    if address.is_loopback() {
        return Kind::Loopback;
    }
    if address.is_unspecified() {
        return Kind::Refused("has no address");
    }
    if let Some(embedded) = embedded_v4(address) {
        // A second spelling of an IPv4 address: what is not simply public is an attempt to pass by a check.
        return match kind_v4(embedded) {
            Kind::Public => Kind::Public,
            Kind::Private | Kind::Loopback | Kind::Refused(_) => {
                Kind::Refused("is an internal IPv4 address within an IPv6 address")
            }
        };
    }
    match address.segments()[0] {
        0xfe80..=0xfebf => Kind::Refused("is an address of the link"),
        0xfec0..=0xfeff => Kind::Refused("is a reserved address"),
        0xff00..=0xffff => Kind::Refused("is an address of several hosts"),
        0xfc00..=0xfdff => Kind::Private,
        _ => Kind::Public,
    }
}

/// Returns the IPv4 address in a mapped, compatible, translated (NAT64), 6to4 or Teredo address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(of(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_addresses(host: &str, addresses: &[&str]) -> Result<(), RefusedAddress> {
        check(host, addresses.iter().map(|address| address.parse().unwrap()))
    }

    #[test]
    fn addresses_of_names_are_refused_all_together() {
        for addresses in [
            ["127.0.0.1", "93.184.216.34"],
            ["93.184.216.34", "127.0.0.1"],
            ["10.0.0.1", "169.254.169.254"],
            ["10.0.0.1", "::1"],
            ["10.0.0.1", "::ffff:10.0.0.1"],
            ["10.0.0.1", "::10.0.0.1"],
            ["10.0.0.1", "64:ff9b::a00:1"],
            ["10.0.0.1", "2002:7f00:1::"],
            ["10.0.0.1", "2001:0:1:1::80ff:fffe"],
            ["10.0.0.1", "fe80::1"],
            ["10.0.0.1", "fd00:ec2::254"],
            ["10.0.0.1", "0.0.0.0"],
            ["10.0.0.1", "::"],
            ["10.0.0.1", "224.0.0.1"],
            ["10.0.0.1", "255.255.255.255"],
            ["10.0.0.1", "100.100.100.200"],
            ["10.0.0.1", "168.63.129.16"],
            ["10.0.0.1", "ff02::1"],
        ] {
            assert!(check_addresses("db.example", &addresses).is_err(), "{addresses:?}");
        }
        for addresses in [["10.0.0.1", "93.184.216.34"], ["fd12::1", "2606:2800::1"], ["172.16.0.1", "100.64.0.1"]] {
            assert_eq!(check_addresses("db.example", &addresses), Ok(()), "{addresses:?}");
        }
        assert!(check_addresses("localhost", &["127.0.0.1", "::1"]).is_ok(), "the configuration says this machine");
        assert!(check_addresses("metadata.google.internal.", &["10.0.0.1"]).is_err());
    }
}
