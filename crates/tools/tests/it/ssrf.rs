//! Server-side request forgery: a tool connects to what the configuration names, and to nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wardroom_respond::ToolError;
use wardroom_tools::http_client::{HttpClient, HttpRequest, check_url};
use wardroom_tools::{Context, Target, check_targets};

use super::little_server::{Canary, LittleServer};
use super::{call, tool, tool_with};

/// Spellings of this machine, and of instance metadata, that a check by text or an incomplete parser lets through.
/// `PORT` is the canary's.
const HOSTS: [&str; 46] = [
    "2130706433:PORT",
    "017700000001:PORT",
    "0x7f000001:PORT",
    "0x7F.0.0.1:PORT",
    "0177.0.0.1:PORT",
    "127.1:PORT",
    "127.0.1:PORT",
    "127.0.0.01:PORT",
    "127.0.0.1.:PORT",
    "127。0。0。1:PORT",
    "①②⑦.0.0.1:PORT",
    "0:PORT",
    "0.0.0.0:PORT",
    "0x0:PORT",
    "00.0.0.0:PORT",
    "[::]:PORT",
    "[0:0:0:0:0:0:0:1]:PORT",
    "[0000::1]:PORT",
    "[::ffff:127.0.0.1]:PORT",
    "[::ffff:7f00:1]:PORT",
    "[::FFFF:127.0.0.1]:PORT",
    "[::127.0.0.1]:PORT",
    "[::7f00:1]:PORT",
    "[64:ff9b::7f00:1]:PORT",
    "[64:ff9b:1::7f00:1]:PORT",
    "[2002:7f00:1::]:PORT",
    "[::ffff:0:127.0.0.1]:PORT",
    "[fe80::1]:PORT",
    "[fe80::1%25lo]:PORT",
    "[ff02::1]:PORT",
    "[fd00:ec2::254]:PORT",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "metadata.google.internal",
    "METADATA.google.internal",
    "metadata.google.internal.",
    "168.63.129.16",
    "100.100.100.200",
    "public.example@127.0.0.1:PORT",
    "public.example:80@127.0.0.1:PORT",
    "127.0.0.1:PORT@public.example@127.0.0.1:PORT",
    "public.example\\@127.0.0.1:PORT",
    "127.0.0.1:PORT\\.public.example",
    "127.0.0.1\t:PORT",
    "LOCALHOST:PORT",
];
/// Values of an argument that would lead a request elsewhere if they were pasted into a URL.
const VALUES: [&str; 24] = [
    "..",
    ".",
    "../..",
    "../../admin",
    "..%2f..",
    "%2e%2e",
    "%2e%2e%2fadmin",
    "..;/admin",
    "a/../../admin",
    "//127.0.0.1:PORT/",
    "\\\\127.0.0.1:PORT\\",
    "@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/",
    "http:127.0.0.1:PORT",
    "?url=http://127.0.0.1:PORT/",
    "#@127.0.0.1:PORT",
    "a?b=c",
    "a#b",
    "a%00b",
    "a\r\nHost: 127.0.0.1:PORT",
    "a\nX: y",
    "a b",
    "é/é",
    "{key}",
];
/// Addresses that a name server may return.
const ANSWERS: [&str; 14] = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "fe80::1",
    "fd00:ec2::254",
    "224.0.0.1",
    "255.255.255.255",
];

#[test]
fn no_spelling_of_a_host_reaches_the_canary() {
    let canary = Canary::start();
    for host in HOSTS {
        let url = format!("http://{}", host.replace("PORT", &canary.port.to_string()));
        for tool in ["process", "query_prometheus"] {
            let target = json!([{ "tool": tool, "name": "a", "url": url }]);
            let targets: Vec<Target> = serde_json::from_value(target).unwrap();
            let error = check_targets(&targets).expect_err(&url);
            assert_eq!(error.field, "targets[0].url", "{url}: {error}");
        }
        // Even if the configuration had been accepted: the client refuses what it can, and a name is not this machine.
        if !["127.0.0.1:", "LOCALHOST", "[0"].iter().any(|plain| url.contains(plain)) {
            let sent = HttpClient::new().send(HttpRequest::new("GET", &url, Duration::from_millis(300)));
            assert!(sent.is_err(), "{url}: {sent:?}");
        }
    }
    assert_eq!(canary.connections(), 0);
    for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://10.1.2.3", "https://a.example/b"]
    {
        assert_eq!(check_url(url), Ok(()), "what an operator writes in plain words is meant");
    }
}

#[test]
fn no_argument_leaves_its_segment_and_no_redirect_is_followed() {
    let canary = Canary::start();
    let place = format!("http://127.0.0.1:{}/", canary.port);
    let server = LittleServer::start(move |request| match item_of(&request.target).parse() {
        Ok(status @ 300..=399) => (status, format!("Location: {place}\r\nRefresh: 0;url={place}\r\n"), "{}".into()),
        _ => (200, String::new(), "{}".into()),
    });
    let request = json!({ "method": "GET", "path": "/base/items/{item}", "query": { "q": "{item}" } });
    let targets = json!([{ "tool": "http", "name": "api", "url": server.url(), "blast-radius": "nothing", "calls": [
        { "name": "show", "summary": "show an item", "read-only": true, "request": request,
          "arguments": { "item": { "description": "item", "type": "text", "pattern": "(?s).*" } } } ] }]);
    let tool = tool(&targets);
    let read = |item: &str| tool.read(&call("http", "show", "api", json!({ "item": item })), Duration::ZERO);
    for value in VALUES {
        let value = value.replace("PORT", &canary.port.to_string());
        let before = server.targets().len();
        match read(&value) {
            Ok(_) => {
                let target = server.targets().last().unwrap().clone();
                let segment = target.strip_prefix("/base/items/").and_then(|rest| rest.split_once("?q="));
                let (segment, query) = segment.unwrap_or_else(|| panic!("{value:?}: {target}"));
                assert_eq!((segment, segment.contains('/')), (query, false), "{value:?}: {target}");
            }
            Err(error) => {
                assert!(matches!(error, ToolError::Invalid(_)), "{value:?}: {error}");
                assert_eq!(server.targets().len(), before, "{value:?} is refused before it is sent");
            }
        }
    }
    for status in [300, 301, 302, 303, 305, 307, 308] {
        assert_eq!(read(&status.to_string()).unwrap()["status"], status, "a redirect is a response like any other");
    }
    assert_eq!(canary.connections(), 0);
    let hosts: Vec<Option<String>> =
        server.received.lock().unwrap().iter().map(|request| request.header("host").map(str::to_owned)).collect();
    assert!(hosts.iter().all(|host| host.as_deref() == Some(server.address.as_str())), "{hosts:?}");
}

#[test]
fn no_answer_of_a_name_server_reaches_the_canary() {
    let canary = Canary::start();
    let port = canary.port;
    let targets = json!([{ "tool": "query_prometheus", "name": "main", "url": format!("http://prometheus.example:{port}"),
        "timeout-seconds": 1 }]);
    for answer in ANSWERS {
        // The address alone, after a harmless one, and as the second answer of two.
        let address: IpAddr = answer.parse().unwrap();
        let harmless: IpAddr = "192.0.2.1".parse().unwrap();
        for addresses in [vec![address], vec![harmless, address], vec![address, harmless]] {
            let found: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
            let client = HttpClient::with_lookup(Arc::new(move |_, _| Ok(found.clone())));
            let context = Context::of_descriptions().with_http(client);
            let query = call("query_prometheus", "instant", "main", json!({ "query": "up" }));
            let error = tool_with(&targets, &context).read(&query, Duration::ZERO).unwrap_err();
            assert!(
                matches!(&error, ToolError::Invalid(text) if text.contains("no connection to")),
                "{answer}: {error}"
            );
        }
    }
    assert_eq!(canary.connections(), 0);
}

/// The last segment of a path.
fn item_of(target: &str) -> &str {
    let path = target.split('?').next().unwrap();
    path.rsplit('/').next().unwrap()
}

/// The name is looked up once for a connection, and the connection is made to that address: a second answer changes
/// nothing.
#[test]
fn a_name_that_changes_its_address_is_checked_again() {
    let canary = Canary::start();
    let port = canary.port;
    let lookups = std::sync::atomic::AtomicUsize::new(0);
    let client = HttpClient::with_lookup(Arc::new(move |_, _| {
        let is_first = lookups.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        // Nothing listens at the first address.
        let address = if is_first { [192, 0, 2, 1] } else { [127, 0, 0, 1] };
        Ok(vec![SocketAddr::from((address, port))])
    }));
    for _ in 0..3 {
        let request = HttpRequest::new("GET", format!("http://api.example:{port}/"), Duration::from_millis(200));
        assert!(client.send(request).is_err());
    }
    assert_eq!(canary.connections(), 0);
}
