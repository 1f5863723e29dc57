//! The data folder of the build before, which is kept as a sample: a server of this build opens it (D14).
//!
//! The sample holds an incident that ended as `escalated`, tables, the audit log, and a checkpoint of format version 3.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use wardroom_testing::Server;
use wardroom_testing::server::run;

const SAMPLE: &[u8] = include_bytes!("samples/data-folder-checkpoint-3.tar.gz");
/// Size of a header and of the units that a file of an archive fills.
const TAR_BLOCK: usize = 512;

/// Writes the files of an archive (ustar) to a folder.
fn unpack(archive: &[u8], to: &Path) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
    let mut rest = bytes.as_slice();
    while rest.first().is_some_and(|first| *first != 0) {
        let (header, tail) = rest.split_at(TAR_BLOCK);
        let text = |from: usize, to: usize| {
            String::from_utf8(header[from..to].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
        };
        let size = usize::from_str_radix(text(124, 136).trim(), 8).unwrap();
        let prefix = text(345, 500);
        let name = if prefix.is_empty() { text(0, 100) } else { format!("{prefix}/{}", text(0, 100)) };
        let path = to.join(name.trim_start_matches("./"));
        match header[156] {
            b'5' => std::fs::create_dir_all(&path).unwrap(),
            _ => std::fs::write(&path, &tail[..size]).unwrap(),
        }
        rest = &tail[size.div_ceil(TAR_BLOCK) * TAR_BLOCK..];
    }
}

#[test]
fn the_data_folder_of_the_build_before_opens_and_its_incident_reads_well() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    unpack(SAMPLE, &data);
    assert_eq!(std::fs::read(data.join("checkpoint/00000000000000000122.state")).unwrap()[4], 3);
    let server = Server::start(dir.path(), "", &[]).unwrap();
    let get = |path: &str| -> Value {
        let (status, text) = server.get(path, &server.responder_token).unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let incident = get("/api/v1/incidents/INC-1");
    assert_eq!(
        (&incident["title"], &incident["state"]),
        (&json!("checkout: 30 % of requests fail"), &json!("escalated"))
    );
    assert_eq!(incident["services"], json!(["checkout"]));
    assert_eq!(incident["hypotheses"][0]["service"], "checkout", "{incident}");
    assert!(incident["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty()), "{incident}");
    let (status, postmortem) = server.get("/api/v1/incidents/INC-1/postmortem", &server.responder_token).unwrap();
    assert!(status == 200 && postmortem.contains("checkout"), "{status} {postmortem}");
    // New telemetry is taken and judged.
    let line = json!({ "level": "ERROR", "message": "after the upgrade", "service": "checkout" });
    let (status, _) = server.post_json("/ingest/logs", &server.sender_token, &line).unwrap();
    assert_eq!(status, 200);
    let text = data.to_str().unwrap();
    drop(server);
    let log = std::fs::read_to_string(dir.path().join("wardroom.log")).unwrap();
    assert!(log.contains("format version 3 is not supported by this build; the bus is read again"), "{log}");
    let (code, said) = run(&["audit", "verify", "--json", "--data", text]).unwrap();
    assert_eq!(code, Some(0), "{said}");
}
