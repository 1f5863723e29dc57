//! Names within names: the workload in a pod's name, the host in an address, the service in a DNS name of Kubernetes.

use std::net::IpAddr;

/// Characters of the random suffixes that Kubernetes appends to names; vowels and the digits 0, 1 and 3 are left out.
/// <https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go>
const SUFFIX_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the random suffix of a pod.
const POD_SUFFIX_LENGTH: usize = 5;
/// Longest ordinal of a StatefulSet's pod, in digits.
const MAX_ORDINAL_DIGITS: usize = 4;

/// Returns the name of the workload in the name of one of its pods:
///
/// ```text
/// cart-6d7f8b556-2cwmz        cart      Deployment: hash of the ReplicaSet, suffix
/// node-agent-x7k2p            node-agent DaemonSet, Job: suffix
/// redis-0                     redis     StatefulSet: ordinal
/// backup-28437120-x7k2p       backup    CronJob: time in minutes, suffix
/// ```
///
/// A name that has none of these forms is returned as it is.
#[inline]
pub fn workload_of_pod(pod: &str) -> &str {
    let Some((rest, last)) = pod.rsplit_once('-').filter(|(rest, _)| !rest.is_empty()) else { return pod };
    if last.len() <= MAX_ORDINAL_DIGITS && last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty() {
        return rest;
    }
    if last.len() != POD_SUFFIX_LENGTH || !is_random(last) {
        return pod;
    }
    match rest.rsplit_once('-').filter(|(name, _)| !name.is_empty()) {
        Some((name, hash)) if is_replica_set_hash(hash) || is_scheduled_time(hash) => name,
        _ => rest,
    }
}

#[inline]
fn is_random(text: &str) -> bool {
    text.bytes().all(|byte| SUFFIX_CHARACTERS.contains(&byte))
}

/// Hashes of ReplicaSets are up to ten of the characters of suffixes; before Kubernetes 1.12 they were decimal. A word
/// without a digit is part of the name.
#[inline]
fn is_replica_set_hash(text: &str) -> bool {
    let is_hash = is_random(text) || text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (5..=10).contains(&text.len()) && is_hash && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// The scheduled time of a CronJob's Job: minutes since 1970, before Kubernetes 1.21 seconds.
#[inline]
fn is_scheduled_time(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the host of an address: `db-1.example.com:9187`, `http://db-1.example.com/metrics` and
/// `postgresql://user@db-1.example.com:5432/shop` have `db-1.example.com`. Empty if there is none.
#[inline]
pub fn host_of(address: &str) -> &str {
    let authority = authority_of(address);
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    match authority.rsplit_once(':') {
        // More than one colon and no brackets: an IPv6 address without a port.
        Some((host, _)) if !host.contains(':') => host,
        Some(_) => authority,
        None => authority,
    }
}

/// Returns host and port of an address, without scheme, user and path.
#[inline]
pub fn authority_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Returns the port of an address.
#[inline]
pub fn port_of(address: &str) -> Option<u16> {
    let authority = authority_of(address);
    let (host, port) = authority.rsplit_once(':')?;
    let is_ipv6 = host.contains(':') && !host.ends_with(']');
    if is_ipv6 { None } else { port.parse().ok() }
}

/// Returns whether a host is the machine itself or no machine: such an address says nothing about which one it is.
#[inline]
pub fn is_loopback(host: &str) -> bool {
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case("localhost.localdomain") {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => false,
    }
}

/// Returns whether a host is an IP address.
#[inline]
pub fn is_ip_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

/// The parts of a DNS name of Kubernetes: `cart.shop.svc.cluster.local`, `redis-0.redis.shop.svc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceDns<'a> {
    /// The pod, for a name of one.
    pub pod: Option<&'a str>,
    /// The Kubernetes Service.
    pub service: &'a str,
    /// The namespace.
    pub namespace: &'a str,
}

/// Reads a DNS name of Kubernetes; `None` for any other name.
/// <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
#[inline]
pub fn service_dns(host: &str) -> Option<ServiceDns<'_>> {
    let (before, after) = host.split_once(".svc")?;
    if !after.is_empty() && !after.starts_with('.') {
        return None;
    }
    let mut parts = before.split('.');
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next());
    let (pod, service, namespace) = match third {
        Some(namespace) => (Some(first), second, namespace),
        None => (None, first, second),
    };
    let whole = parts.next().is_none() && !service.is_empty() && !namespace.is_empty();
    whole.then_some(ServiceDns { pod, service, namespace })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_has_its_workload() {
        for (pod, workload) in [
            ("cart-6d7f8b556-2cwmz", "cart"),
            ("cart-api-v2-55df867c4-2sk54", "cart-api-v2"),
            ("old-3749285017-x7k2p", "old"),
            ("node-agent-x7k2p", "node-agent"),
            ("redis-0", "redis"),
            ("kafka-broker-12", "kafka-broker"),
            ("backup-28437120-x7k2p", "backup"),
            ("backup-1601234560-x7k2p", "backup"),
            ("cart", "cart"),
            ("cart-service", "cart-service"),
            ("cart-backend-api", "cart-backend-api"),
            ("my-backend-x7k2p", "my-backend"),
            ("-0", "-0"),
            ("", ""),
            ("static-pod-node-1", "static-pod-node"),
        ] {
            assert_eq!(workload_of_pod(pod), workload, "{pod}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (address, host, port) in [
            ("db-1.example.com:9187", "db-1.example.com", Some(9187)),
            ("http://shop.example.com:8080/a/b?c=d", "shop.example.com", Some(8080)),
            ("https://shop.example.com", "shop.example.com", None),
            ("postgresql://user:secret@db:5432/shop", "db", Some(5432)),
            ("10.0.0.7:80", "10.0.0.7", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("fe80::1", "fe80::1", None),
            ("db", "db", None),
            ("", "", None),
        ] {
            assert_eq!((host_of(address), port_of(address)), (host, port), "{address}");
        }
    }

    #[test]
    fn loopback_addresses_name_no_machine() {
        for host in ["127.0.0.1", "127.8.0.1", "::1", "0.0.0.0", "::", "localhost", "LOCALHOST", ""] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "db-1", "local", "fe80::1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn dns_names_of_kubernetes_have_service_and_namespace() {
        let dns = |pod, service, namespace| Some(ServiceDns { pod, service, namespace });
        assert_eq!(service_dns("cart.shop.svc"), dns(None, "cart", "shop"));
        assert_eq!(service_dns("cart.shop.svc.cluster.local"), dns(None, "cart", "shop"));
        assert_eq!(service_dns("redis-0.redis.shop.svc"), dns(Some("redis-0"), "redis", "shop"));
        for other in ["cart.example.com", "cart.svc", "a.b.c.d.svc", "cart.shop.svcx", "", ".shop.svc"] {
            assert_eq!(service_dns(other), None, "{other}");
        }
    }
}
